//! Likes within an axum program: a page, `GET /likes`, `PUT /like` and the WebSocket `/liveLikes` in bare numbers, on one
//! [`Likes`].
//!
//! The counter blocks, and a task must not. So a thread waits for each count and puts it into a `watch` channel, which
//! keeps the newest for every task; and a like, which waits until it is saved, is given on a thread that may wait.
//! Who may like, and how often, is for this program to say: the checks of the crate's own server are not here.
//! It runs by `cargo run --manifest-path examples/axum/Cargo.toml`.

#[cfg(test)]
mod tests;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{Html, Json, Response};
use axum::{Router, extract::State, http::StatusCode, routing::get, routing::put};
use live_likes::Likes;
use serde_json::{Value, from_str, json};
use std::{thread, time::Duration};
use tokio::{net::TcpListener, select, signal, spawn, sync::mpsc, sync::watch, task::spawn_blocking, time::timeout};

/// For a client to read a count or to close, and for likes to be saved in the end.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Counter {
    likes: Likes,
    newest: watch::Receiver<u64>,
    _held: mpsc::Sender<()>, // by every connection, so that the end of the last one can be waited for
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let likes = Likes::open("db.txt")?;
    let mut served = serve(TcpListener::bind("127.0.0.1:3000").await?, likes.clone());
    println!("http://localhost:3000/");
    select! { _ = signal::ctrl_c() => {}, _ = served.recv() => {} } // The latter: likes can never be saved again.
    let saved = spawn_blocking(move || likes.close(DEADLINE)).await?;
    let _ = timeout(DEADLINE, served.recv()).await;
    Ok(saved.map(drop)?)
}

/// Serves until the counter is closed. What it returns ends when the last connection does.
fn serve(listener: TcpListener, likes: Likes) -> mpsc::Receiver<()> {
    let mut counts = likes.subscribe();
    let (sender, newest) = watch::channel(counts.next().unwrap_or(0)); // The count as it is, which is there at once.
    thread::spawn(move || counts.for_each(|count| _ = sender.send_replace(count)));
    let (mut end, (_held, served)) = (newest.clone(), mpsc::channel(1));
    let closed = async move { while end.changed().await.is_ok() {} };
    let app = Router::new()
        .route("/", get(Html(include_str!("../../../tests/support/tutorial.html"))))
        .route("/likes", get(async |State(counter): State<Counter>| numbered(counter.likes.count())))
        .route("/like", put(async |State(counter): State<Counter>| counter.like().await))
        .route("/liveLikes", get(upgrade))
        .with_state(Counter { likes, newest, _held });
    spawn(axum::serve(listener, app).with_graceful_shutdown(closed).into_future());
    served
}

async fn upgrade(upgrade: WebSocketUpgrade, State(counter): State<Counter>) -> Response {
    upgrade.max_message_size(4096).on_upgrade(|socket| counter.talk(socket))
}

impl Counter {
    async fn like(&self) -> Result<Json<Value>, (StatusCode, String)> {
        let likes = self.likes.clone();
        let like = spawn_blocking(move || likes.like()).await.expect("a like does not panic");
        like.map(numbered).map_err(|e| (StatusCode::SERVICE_UNAVAILABLE, e.to_string()))
    }

    /// Shows a client the count as it is, then each that comes, or the newest if it is behind; and takes its likes.
    async fn talk(mut self, mut socket: WebSocket) {
        self.newest.mark_changed();
        let code = loop {
            select! {
                changed = self.newest.changed() => {
                    let Ok(()) = changed else { break close_code::AWAY };
                    let send = socket.send(self.newest.borrow_and_update().to_string().into());
                    let Ok(Ok(())) = timeout(DEADLINE, send).await else { return };
                }
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) if from_str::<Value>(&text).is_ok_and(|said| said["type"] == "like") => {
                        let Ok(_) = self.like().await else { break close_code::AGAIN };
                    }
                    Some(Ok(Message::Text(_) | Message::Binary(_))) => break close_code::POLICY,
                    Some(Ok(_)) => {} // A ping or a close, which axum answers.
                    None | Some(Err(_)) => return,
                }
            }
        };
        let _ = timeout(DEADLINE, close(socket, code)).await;
    }
}

fn numbered(likes: u64) -> Json<Value> {
    Json(json!({ "numLikes": likes }))
}

async fn close(mut socket: WebSocket, code: u16) {
    let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
    while let Some(Ok(_)) = socket.recv().await {} // until the client has closed too
}
