//! The server: what it is built of, where it listens, and how it is stopped.

mod acceptor;
pub(crate) mod access;
mod access_log;
pub(crate) mod allowed;
mod badge;
mod capacity;
mod connection;
mod events;
mod fallback;
mod likes;
pub(crate) mod listener;
pub(crate) mod page;
mod peer;
mod places;
mod process;
mod proxies;
pub(crate) mod query;
mod rate;
mod routes;
pub(crate) mod service;
mod state;
mod watcher;

use crate::{
    error::{Error, Result},
    likes::{Hook, Posts},
    limits::Limits,
    server::acceptor::{Acceptor, Heartbeat},
    server::access::Access,
    server::allowed::AllowedPosts,
    server::fallback::Fallback,
    server::listener::{Address, Listener},
    server::page::Page,
    server::places::Places,
    server::proxies::Proxies,
    server::rate::Rate,
    server::service::{Kind, Service},
    server::state::State,
};
use std::{
    fmt,
    io::{self, Write},
    net::{Ipv6Addr, SocketAddr, ToSocketAddrs},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::{Duration, Instant, SystemTime},
};

/// Builds a server out of counters, a page, limits, and the names it answers to.
///
/// ```no_run
/// use live_likes::{Likes, Server};
///
/// let likes = Likes::open("db.txt")?;
/// let server = Server::new(likes).bind("127.0.0.1:3000")?;
/// println!("http://{}/", server.local_addr());
/// server.run()?;
/// # Ok::<(), live_likes::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Server {
    posts: Posts,
    page: Page,
    limits: Limits,
    hosts: Vec<String>,
    origins: Vec<String>,
    frames: Vec<String>,
    prefix: String,
    fallback: Option<Fallback>,
    allowed: Option<AllowedPosts>,
    proxies: Vec<String>,
    forwarded_header: Option<String>,
}

impl Server {
    /// A server for all counters of a store, with the built-in page and the default limits. Made out of one of them,
    /// it is for all of its store too.
    #[must_use]
    pub fn new(posts: impl Into<Posts>) -> Self {
        let (page, limits) = (Page::default(), Limits::default());
        let (hosts, origins, frames, proxies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (prefix, fallback, allowed, forwarded_header) = (String::new(), None, None, None);
        let posts = posts.into();
        Self { posts, page, limits, hosts, origins, frames, prefix, fallback, allowed, proxies, forwarded_header }
    }

    /// Serves this page instead of the built-in one.
    #[must_use]
    pub fn page(self, page: Page) -> Self {
        Self { page, ..self }
    }

    /// Sets the limits, which are [checked](Limits::check) when the server is built.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Answers to this host name too: `likes.example`, or `likes.example:8080` for one port alone.
    ///
    /// Without any, a server on a loopback address answers to loopback names alone, lest a page with a name that
    /// points at 127.0.0.1 reach it (DNS rebinding), and one on another address to every name.
    #[must_use]
    pub fn allow_host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// Lets pages of this origin like and watch: `https://blog.example`, `blog.example` under `http` and `https` and any
    /// port, or `*` for pages of any origin, and those without one.
    ///
    /// Pages of the server's own origin always may, and those of any loopback name with the same port if the server
    /// is called by one.
    #[must_use]
    pub fn allow_origin(mut self, name: impl Into<String>) -> Self {
        self.origins.push(name.into());
        self
    }

    /// Lets pages of this origin show the page in a frame: named as for [`allow_origin`](Self::allow_origin), or `*` for
    /// any. Pages of the server's own origin always may.
    #[must_use]
    pub fn allow_frame(mut self, name: impl Into<String>) -> Self {
        self.frames.push(name.into());
        self
    }

    /// Has only these posts exist, besides the default counter: any other is answered 404, and is not among the most
    /// liked. Without a list, all may.
    #[must_use]
    pub fn allow_posts(self, posts: AllowedPosts) -> Self {
        Self { allowed: Some(posts), ..self }
    }

    /// Puts all that is served under a path: with `/counter`, the page is at `/counter/` and the count at
    /// `/counter/likes`. Without, at `/` and `/likes`.
    ///
    /// A page of one's own has to name its URLs accordingly; the built-in one does.
    #[must_use]
    pub fn prefix(self, path: impl AsRef<str>) -> Self {
        let path = path.as_ref().trim_matches('/');
        Self { prefix: if path.is_empty() { String::new() } else { format!("/{path}") }, ..self }
    }

    /// Has the host program answer every request for a path that is not the server's, in place of 404.
    ///
    /// ```
    /// use live_likes::{Likes, Server, http::{Response, StatusCode}};
    ///
    /// # fn serve(likes: Likes) -> Server {
    /// Server::new(likes).prefix("/counter").fallback(|request| match request.uri().path() {
    ///     "/hello" => Response::new(b"hello\n".to_vec()),
    ///     _ => Response::builder().status(StatusCode::NOT_FOUND).body(Vec::new()).expect("a valid response"),
    /// })
    /// # }
    /// ```
    ///
    /// The request has its target and its fields as they came, and its whole body, of which each connection may thus hold
    /// as much as [`Limits::body_bytes`]. It has kept to the limits, to HTTP/1.1, and to the host names that are allowed; where
    /// it comes from ([`allow_origin`](Self::allow_origin)) has not been asked. `CONNECT` is answered 501 all the same.
    ///
    /// Of the response, the status, the fields and the body are sent; `Content-Length`, `Transfer-Encoding`,
    /// `Connection`, `Upgrade`, `Date` and the like are the server's. It has to be taken within
    /// [`Limits::write_deadline`]. The handler runs on its connection's thread, and others wait for nothing
    /// that it does; a panic in it, or an interim status such as 101, is answered 500.
    #[must_use]
    pub fn fallback(
        self,
        handler: impl Fn(::http::Request<Vec<u8>>) -> ::http::Response<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self { fallback: Some(Fallback(Arc::new(handler))), ..self }
    }

    /// Believes what a proxy says of its clients: `192.0.2.7`, `10.0.0.0/8`, or `unix` for whoever connects to a Unix
    /// socket.
    ///
    /// Limits by address then go by the client's, which is read from [`X-Forwarded-For`](Self::forwarded_header) from the
    /// right, up to the first address that is not trusted. Which origin is the server's own is judged by
    /// `X-Forwarded-Host` and `X-Forwarded-Proto`, where the proxy sends them. Of any other peer, nothing of this is
    /// believed. [`allow_host`](Self::allow_host) judges `Host`, whoever sends it.
    #[must_use]
    pub fn trust_proxy(mut self, name: impl Into<String>) -> Self {
        self.proxies.push(name.into());
        self
    }

    /// The one header field in which trusted proxies name the address of a client, in place of `X-Forwarded-For`:
    /// `X-Real-IP`, or `Forwarded` (RFC 7239), which says the host and the scheme as well.
    ///
    /// It must be one that the proxy sets or adds to: a proxy passes on what a client sends in any other.
    #[must_use]
    pub fn forwarded_header(self, name: impl Into<String>) -> Self {
        Self { forwarded_header: Some(name.into()), ..self }
    }

    /// Listens on an address; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] where the address cannot be had; and as [`listen_on`](Self::listen_on).
    pub fn bind(self, addr: impl ToSocketAddrs + fmt::Debug) -> Result<Listening> {
        self.listen_on(Listener::bind(addr)?)
    }

    /// Listens on a [`Listener`], or a listener of the standard library's. It becomes non-blocking, and its backlog as
    /// long as the system allows.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] where a limit is outside its range; [`Error::Name`] and [`Error::Proxy`] where a name that was to
    /// be allowed or trusted is none; [`Error::Listen`] where the listener is not usable.
    pub fn listen_on(self, listener: impl Into<Listener>) -> Result<Listening> {
        let state = self.build()?;
        let (wake, woken) = UnixStream::pair().map_err(Error::Listen)?;
        wake.set_nonblocking(true).map_err(Error::Listen)?;
        let handle = Handle { wake: Arc::new(wake) };
        let stop = handle.clone();
        let hook: Arc<Hook> = Arc::new(move || stop.stop());
        state.likes.when_stopped(&hook);
        let (listeners, addresses) = (Vec::new(), Vec::new());
        let listening =
            Listening { listeners, addresses, metrics: None, heartbeat: None, woken, handle, state, _hook: hook };
        listening.and_on(listener)
    }

    /// Serves connections that a host program accepts itself.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] where a limit is outside its range; [`Error::Name`] where a name that was to be allowed is none.
    pub fn into_service(self) -> Result<Service> {
        self.build().map(Service::new)
    }

    fn build(self) -> Result<State> {
        self.limits.check()?;
        Ok(State {
            likes: self.posts.default_counter()?,
            posts: self.posts,
            page: self.page,
            prefix: self.prefix,
            fallback: self.fallback,
            access: Access::new(&self.hosts, &self.origins)?,
            ancestors: access::ancestors(&self.frames)?,
            proxies: Proxies::new(&self.proxies, self.forwarded_header.as_deref())?,
            allowed: self.allowed,
            rate: self.limits.likes_per_second_and_address.map(|most| Rate::new(most, Duration::from_secs(1))),
            new_posts: Rate::new(self.limits.new_posts_per_hour_and_address, Duration::from_secs(3600)),
            places: self.limits.connections_per_address.map(|most| Arc::new(Places::new(most))),
            limits: self.limits,
            metrics_apart: false,
            stopping: AtomicBool::new(false),
            capacity: usize::MAX,
            connections: AtomicUsize::new(0),
            watchers: Default::default(),
            refusals: Arc::default(),
            started: SystemTime::now(),
            dropped: AtomicUsize::new(0),
        })
    }
}

/// A server that listens, and accepts once it runs.
pub struct Listening {
    listeners: Vec<(Listener, Kind)>,
    addresses: Vec<Address>,
    metrics: Option<Listener>,
    heartbeat: Option<Heartbeat>,
    woken: UnixStream,
    handle: Handle,
    state: State,
    /// Stops the server when the counter has stopped for good. The counter holds it only as long as this does.
    _hook: Arc<Hook>,
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Listening {
    /// Listens there too.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] where the listener is not usable.
    pub fn and_on(mut self, listener: impl Into<Listener>) -> Result<Self> {
        let listener = listener.into();
        let address = listener.prepare().map_err(Error::Listen)?;
        self.listeners.push((listener, Kind::Public { loopback: address.is_loopback() }));
        self.addresses.push(address);
        Ok(self)
    }

    /// The address, with the port that was taken: the first on the internet, and `[::]:0` where there is none.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        let of_internet = |address: &Address| match address {
            Address::Internet(addr) => Some(*addr),
            Address::Unix(_) => None,
        };
        self.addresses.iter().find_map(of_internet).unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, 0).into())
    }

    /// All addresses, in the order in which they were given.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Has the thread that accepts connections call this about so often while it does, which tells a watchdog that it
    /// lives. It must not wait.
    #[must_use]
    pub fn heartbeat(self, every: Duration, call: impl FnMut() + Send + 'static) -> Self {
        Self { heartbeat: Some(Heartbeat { every, next: Instant::now(), call: Box::new(call) }), ..self }
    }

    /// Answers `/metrics` on an address of its own instead, and `/healthz` there too, under any host name.
    ///
    /// It has 16 connections of its own, so that it is answered also when there are as many as the limit allows.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] where the address cannot be had; [`Error::Listen`] where the listener is not usable.
    pub fn metrics_on(mut self, addr: impl ToSocketAddrs + fmt::Debug) -> Result<Self> {
        let listener = Listener::bind(addr)?;
        listener.prepare().map_err(Error::Listen)?;
        self.metrics = Some(listener);
        self.state.metrics_apart = true;
        Ok(self)
    }

    /// The address of the metrics, if they have one of their own.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        match self.metrics.as_ref()?.address() {
            Ok(Address::Internet(addr)) => Some(addr),
            _ => None,
        }
    }

    /// What stops the server, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Accepts and serves until it is stopped; then tells every client, and saves what came.
    ///
    /// The counter stays open for others; when the last handle to it is dropped, it is closed.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] where the counter has stopped for good, which stops the server too; [`Error::NotSaved`]
    /// where likes could not be saved within the time for a stop; [`Error::Listen`] where the listener fails, or the
    /// system allows no connection at all.
    pub fn run(self) -> Result<()> {
        let Self { listeners, metrics, heartbeat, woken, state, .. } = self;
        let service = Service::new(state);
        if service.capacity() == 0 {
            return Err(Error::Listen(io::Error::other("the system allows none at all")));
        }
        // The metrics first, so that theirs is a descriptor that has become free.
        let metrics = metrics.map(|listener| (listener, Kind::Metrics));
        let listeners = metrics.into_iter().chain(listeners).collect();
        let mut acceptor = Acceptor::new(listeners, woken, &service, heartbeat);
        let result = acceptor.accept_until_stopped();
        acceptor.leave_shared();
        // Who comes now is told that it is over, rather than left to wait.
        service.stop_while(move || acceptor.accept_briefly())?;
        result
    }
}

/// Stops a server from another thread. Cloned freely.
#[derive(Clone, Debug)]
pub struct Handle {
    wake: Arc<UnixStream>,
}

impl Handle {
    /// Has the server stop gracefully. Returns at once, [`Listening::run`] when it is done.
    pub fn stop(&self) {
        // A second byte changes nothing, and one that does not fit means that there is one already.
        let _ = (&*self.wake).write(&[0]);
    }
}
