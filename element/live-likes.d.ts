/** `<live-likes>`: a like button whose count is live. */
export class LiveLikes extends HTMLElement {
  /** How many likes the post has; null before the first count. Exact up to 2^53. */
  readonly count: number | null;
  /** Whether this visitor likes the post, as the server has said. */
  readonly liked: boolean;
  /** Likes the post. Resolves to `liked` once the server has answered or refused. */
  like(): Promise<boolean>;
  /** Takes the like back. Resolves to `liked` once the server has answered or refused. */
  unlike(): Promise<boolean>;
}

/** What a post's count is. */
export interface CountDetail {
  post: string;
  count: number;
  liked: boolean;
}

/** Why a like, or a look at a post, was refused, in the server's words. */
export interface ErrorDetail {
  post: string;
  /** The HTTP status for it; 0 where the server cannot be reached or is not named well. */
  status: number;
  problem: string;
}

declare global {
  interface HTMLElementTagNameMap {
    'live-likes': LiveLikes;
  }
  interface GlobalEventHandlersEventMap {
    /** The count is another one. */
    'live-likes:count': CustomEvent<CountDetail>;
    /** A like or an unlike of this element's was answered. */
    'live-likes:like': CustomEvent<CountDetail>;
    'live-likes:error': CustomEvent<ErrorDetail>;
  }
}
