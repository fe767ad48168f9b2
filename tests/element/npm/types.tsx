import { LiveLikes, type CountDetail } from 'live-likes';

declare module 'react' {
  namespace JSX {
    interface IntrinsicElements {
      'live-likes': React.HTMLAttributes<HTMLElement> & { post?: string; server?: string; readonly?: boolean };
    }
  }
}

const button: LiveLikes = document.createElement('live-likes');
const count: number | null = button.count;
const liked: Promise<boolean> = button.like().then(() => button.unlike());
button.addEventListener('live-likes:count', ({ detail }) => {
  const told: CountDetail = detail;
  console.log(told.post, told.count, told.liked);
});
document.addEventListener('live-likes:error', ({ detail: { post, status, problem } }) => {
  console.log(post, status, problem);
});
// @ts-expect-error: the server says it
button.liked = true;

export const post = <live-likes post="/hello/" server="https://likes.example" readonly={false} />;
export { count, liked };
