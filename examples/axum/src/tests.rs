//! The program as its clients see it.

use super::serve;
use futures_util::{SinkExt, StreamExt};
use live_likes::Likes;
use std::{env, fs, net::SocketAddr, path::PathBuf, process, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::spawn_blocking,
    time::timeout,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

const DEADLINE: Duration = Duration::from_secs(10);

/// The program, with a file of its own.
struct Program {
    folder: PathBuf,
    likes: Likes,
    addr: SocketAddr,
    served: mpsc::Receiver<()>,
}

impl Program {
    async fn start(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("live-likes-axum-{name}-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let likes = Likes::open(folder.join("db.txt")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let served = serve(listener, likes.clone());
        Self { folder, likes, addr, served }
    }

    async fn connect(&self) -> Client {
        connect_async(format!("ws://{}/liveLikes", self.addr)).await.unwrap().0
    }

    /// The whole answer to a request.
    async fn answer(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
        answer
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn like(client: &mut Client) {
    client.send(r#"{"type":"like"}"#.into()).await.unwrap();
}

/// What a client is shown next.
async fn next(client: &mut Client) -> Message {
    timeout(DEADLINE, client.next()).await.expect("a message in time").expect("a message").unwrap()
}

async fn both_are_shown(one: &mut Client, other: &mut Client, count: u64) {
    for client in [one, other] {
        assert_eq!(next(client).await, count.to_string().into());
    }
}

#[tokio::test]
async fn two_clients_and_a_put_stay_in_step() {
    let program = Program::start("step").await;
    let (mut one, mut other) = (program.connect().await, program.connect().await);
    both_are_shown(&mut one, &mut other, 0).await;
    like(&mut one).await;
    both_are_shown(&mut one, &mut other, 1).await;
    assert!(program.answer("PUT /like").await.ends_with("\r\n{\"numLikes\":2}"));
    both_are_shown(&mut one, &mut other, 2).await;
    like(&mut other).await;
    both_are_shown(&mut one, &mut other, 3).await;
    assert!(program.answer("GET /likes").await.ends_with("\r\n{\"numLikes\":3}"));
    assert!(program.answer("GET /").await.contains("likeTweetWs"));
}

#[tokio::test]
async fn what_is_no_like_ends_the_connection_with_1008() {
    let program = Program::start("policy").await;
    for message in [Message::text("hello"), Message::text("{}"), Message::binary(r#"{"type":"like"}"#)] {
        let mut client = program.connect().await;
        assert_eq!(next(&mut client).await, "0".into());
        client.send(message).await.unwrap();
        let Message::Close(Some(close)) = next(&mut client).await else { panic!("a close frame is expected") };
        assert_eq!(u16::from(close.code), 1008);
    }
    assert_eq!(program.likes.count(), 0);
}

#[tokio::test]
async fn a_counter_that_is_closed_ends_the_program_with_every_client_told() {
    let mut program = Program::start("end").await;
    let mut client = program.connect().await;
    assert_eq!(next(&mut client).await, "0".into());
    program.likes.like_without_waiting().unwrap();
    let likes = program.likes.clone();
    assert_eq!(spawn_blocking(move || likes.close(DEADLINE)).await.unwrap().unwrap(), 1);
    assert_eq!(next(&mut client).await, "1".into());
    let Message::Close(Some(close)) = next(&mut client).await else { panic!("a close frame is expected") };
    assert_eq!(u16::from(close.code), 1001);
    assert!(client.next().await.is_none());
    assert_eq!(timeout(DEADLINE, program.served.recv()).await.expect("the last connection ends"), None);
    assert!(TcpStream::connect(program.addr).await.is_err());
}
