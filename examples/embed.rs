//! Likes within a program that has an accept loop and routes of its own: `/hello` beside the page and its likes.
//!
//! ```sh
//! cargo run --example embed
//! curl http://localhost:3000/likes http://localhost:3000/hello    # over one connection
//! ```

use live_likes::{
    Likes, Server, Service,
    http::{Request, Response, StatusCode},
};
use std::{error::Error, net::TcpListener, thread, time::Duration};

fn main() -> Result<(), Box<dyn Error>> {
    let likes = Likes::open("db.txt")?;

    // The program hears every count too, like any page that is open.
    let counts = likes.subscribe();
    thread::spawn(move || counts.for_each(|count| println!("{count} likes")));

    let service = Server::new(likes).fallback(answer).into_service()?;
    let listener = TcpListener::bind("127.0.0.1:3000")?;
    println!("http://localhost:3000/ and http://localhost:3000/hello");
    accept(&listener, &service);
    Ok(())
}

/// Gives each connection a thread, so that one that says nothing keeps nobody waiting.
pub fn accept(listener: &TcpListener, service: &Service) {
    for stream in listener.incoming() {
        let service = service.clone();
        let served = stream.and_then(|stream| thread::Builder::new().spawn(move || service.serve(stream)));
        if let Err(e) = served {
            // No descriptor or no thread left, as a rule. The listener stays; some will end.
            eprintln!("cannot serve a connection: {e}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The program's own routes: asked for every path that is not the server's.
pub fn answer(request: Request<Vec<u8>>) -> Response<Vec<u8>> {
    let (status, text) = match request.uri().path() {
        "/hello" => (StatusCode::OK, "hello\n"),
        _ => (StatusCode::NOT_FOUND, "there is nothing here\n"),
    };
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
}
