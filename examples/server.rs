//! The main job in a page of code: the page of this checkout at <http://localhost:3000/>, the count in its `db.txt`.
//!
//! ```sh
//! cargo run --release --example server
//! ```

use live_likes::{Likes, Page, Server};

fn main() {
    if let Err(e) = run() {
        eprintln!("{e}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), live_likes::Error> {
    let checkout = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));

    // The counter: opens the file, or says what is wrong with it.
    let likes = Likes::open(checkout.join("db.txt"))?;

    // The server: the counter's page, its API and its WebSocket.
    let server = Server::new(likes.clone()).page(Page::open(checkout.join("index.html"))?).bind("127.0.0.1:3000")?;
    println!("Live Likes at http://localhost:{}/ with {} likes", server.local_addr().port(), likes.count());

    // Each like is saved before it is shown, so the program may be stopped in any way at any time.
    server.run()
}
