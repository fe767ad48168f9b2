//! The like counter on axum's WebSocket and tokio's broadcast channel: a task per client, which takes each count from
//! the channel and sends it. A client that falls more than the channel's capacity behind misses counts.
//! The count lives in memory. `PORT` is the port (3000 if unset, 0 for a free one).
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::{Json, Response};
use axum::routing::{any, get, put};
use axum::serve::ListenerExt;
use axum::{Router, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::broadcast::{self, error::RecvError};

/// How many counts a client may be behind before it misses some.
const CAPACITY: usize = 1024;

struct Likes {
    count: Mutex<u64>,
    counts: broadcast::Sender<Utf8Bytes>,
}

impl Likes {
    fn like(&self) -> u64 {
        // Sent under the lock, so that the channel holds the counts in their order.
        let mut count = self.count.lock().unwrap();
        *count += 1;
        // An error means that nobody watches.
        let _ = self.counts.send(count.to_string().into());
        *count
    }
}

fn main() -> std::io::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let runtime = match cores {
        1 => Builder::new_current_thread().enable_all().build()?,
        _ => Builder::new_multi_thread().worker_threads(cores).enable_all().build()?,
    };
    runtime.block_on(async {
        let likes = Arc::new(Likes { count: Mutex::new(0), counts: broadcast::Sender::new(CAPACITY) });
        let app = Router::new()
            .route("/likes", get(count))
            .route("/like", put(like))
            .route("/liveLikes", any(upgrade))
            .with_state(likes);
        let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(3000);
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        println!("http://{}/", listener.local_addr()?);
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        serve(listener, app).await
    })
}

async fn count(State(likes): State<Arc<Likes>>) -> Json<Value> {
    let count = *likes.count.lock().unwrap();
    Json(json!({ "numLikes": count }))
}

async fn like(State(likes): State<Arc<Likes>>) -> Json<Value> {
    Json(json!({ "numLikes": likes.like() }))
}

async fn upgrade(upgrade: WebSocketUpgrade, State(likes): State<Arc<Likes>>) -> Response {
    // The default of 128 KiB is allocated at once, for each client.
    upgrade.read_buffer_size(4096).on_upgrade(move |socket| watch(socket, likes))
}

async fn watch(mut socket: WebSocket, likes: Arc<Likes>) {
    // One lock over both, so that no count is missed or seen twice between them.
    let (first, mut counts) = {
        let count = likes.count.lock().unwrap();
        (count.to_string(), likes.counts.subscribe())
    };
    if socket.send(Message::Text(first.into())).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            count = counts.recv() => match count {
                Ok(count) => if socket.send(Message::Text(count)).await.is_err() { return },
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    if serde_json::from_str::<Value>(&text).is_ok_and(|message| message["type"] == "like") {
                        likes.like();
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}
