//! The blog, which knows nothing of likes but the address of their server, and that server.

use crate::memory::Memory;
use live_likes::{
    Error, Listening, Posts, Result, Server,
    http::{Request, Response, StatusCode},
};
use std::net::TcpListener;

/// Of each page its path, its type and its text, in which `LIKES` and `BLOG` stand for the two origins.
const PAGES: [(&str, &str, &str); 6] = [
    ("/", HTML, include_str!("pages/index.html")),
    ("/2026/hello/", HTML, include_str!("pages/hello.html")),
    ("/2026/bread/", HTML, include_str!("pages/bread.html")),
    ("/2026/rain/", HTML, include_str!("pages/rain.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("pages/style.css")),
    ("/favicon.svg", "image/svg+xml", include_str!("../../src/server/favicon.svg")),
];
const HTML: &str = "text/html; charset=utf-8";

/// As strict as a policy can be that lets the button run, speak to its server, and work as a form without a script.
const POLICY: &str = "default-src 'none'; script-src LIKES; connect-src LIKES WS; style-src 'self'; img-src 'self'; \
    form-action 'self' LIKES; base-uri 'none'; frame-ancestors 'self'";

/// Listens on both addresses. The blog is told where the likes are, and their server which pages may like.
pub fn start(blog: &str, likes: &str) -> Result<(Listening, Listening)> {
    let posts = Posts::with_store(Memory::default())?;
    // First the port of the blog, which the server of the likes has to know, and then that of the likes.
    let listener = TcpListener::bind(blog).map_err(|source| Error::Bind { addr: blog.to_owned(), source })?;
    let port = listener.local_addr().map_err(Error::Listen)?.port();
    let origins = ["localhost", "127.0.0.1"].map(|host| format!("http://{host}:{port}"));
    let likes = origins.iter().fold(Server::new(posts.clone()), Server::allow_origin).bind(likes)?;
    let (own, other) = (origins[0].clone(), origin(&likes));
    // Any web server would do for the blog. This one's own routes are of no use to it, and so put out of the way.
    let blog = Server::new(posts).prefix("/unused").fallback(move |request| answer(&request, &own, &other));
    Ok((blog.listen_on(listener)?, likes))
}

/// The origin that pages of a server have in a browser.
pub fn origin(server: &Listening) -> String {
    format!("http://localhost:{}", server.local_addr().port())
}

fn answer(request: &Request<Vec<u8>>, own: &str, likes: &str) -> Response<Vec<u8>> {
    let Some((_, kind, text)) = PAGES.iter().find(|(path, ..)| *path == request.uri().path()) else {
        let mut response = Response::new(b"There is no such page.\n".to_vec());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let policy = POLICY.replace("LIKES", likes).replace("WS", &likes.replace("http", "ws"));
    Response::builder()
        .header("Content-Type", *kind)
        .header("Content-Security-Policy", policy)
        .body(text.replace("LIKES", likes).replace("BLOG", own).into())
        .expect("valid fields")
}
