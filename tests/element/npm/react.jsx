import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import 'live-likes';

const root = createRoot(document.querySelector('main'));

function App({ server, posts, readonly, onLike }) {
  const button = (post) => (
    <p key={post}><live-likes post={post} server={server} readonly={readonly} {...{ 'onlive-likes:like': onLike }} /></p>
  );
  return <StrictMode>{posts.map(button)}</StrictMode>;
}

globalThis.show = (properties) => root.render(<App {...properties} />);
globalThis.unmount = () => root.unmount();
