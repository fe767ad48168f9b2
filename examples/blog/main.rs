//! A blog with a like button under each post: the blog at <http://localhost:3000/>, the likes at another origin,
//! `http://localhost:3001`. Other addresses may be given, first the blog's.
//!
//! ```sh
//! cargo run --release --example blog
//! ```

mod memory;
mod site;

fn main() {
    let mut addresses = std::env::args().skip(1);
    let mut next = |default: &str| addresses.next().unwrap_or_else(|| default.to_owned());
    if let Err(e) = run(&next("127.0.0.1:3000"), &next("127.0.0.1:3001")) {
        eprintln!("{e}");
        std::process::exit(1);
    }
}

fn run(blog: &str, likes: &str) -> live_likes::Result<()> {
    let (blog, likes) = site::start(blog, likes)?;
    println!(
        "The blog at {}/, its likes at {}; they are forgotten at the end",
        site::origin(&blog),
        site::origin(&likes)
    );
    std::thread::scope(|scope| {
        let likes = scope.spawn(|| likes.run());
        blog.run()?;
        likes.join().expect("the server of the likes does not panic")
    })
}
