//! Drives the installed Chromium over the DevTools protocol: as much of it as the browser tests need.
//!
//! A few calls over tungstenite, which is in the tree already, instead of a driver crate: the usual
//! one brings about 140 crates, and types for every event of one version of the protocol, to which
//! the next Chromium need not keep. All waiting is for an answer or an event, with a deadline.

#![allow(dead_code, reason = "each test file uses a part")]

use std::cell::RefCell;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// Far more than anything takes on an idle machine, so that a busy one fails no test.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// One Chromium with an empty profile of its own, ended when this is dropped.
pub struct Browser {
    process: Process,
    output: Receiver<String>,
    profile: PathBuf,
    protocol: Rc<RefCell<Protocol>>,
}

impl Browser {
    /// Starts Chromium: `$CHROMIUM`, or the first of its usual names on the path.
    pub fn start() -> Browser {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let profile = env::temp_dir().join(format!("live-likes-chromium-{}-{number}", process::id()));
        let _ = fs::remove_dir_all(&profile);
        fs::create_dir(&profile).expect("a directory for the profile");

        let process = Command::new(chromium())
            .args("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run".split(' '))
            .args("--disable-background-networking --disable-component-update --disable-sync".split(' '))
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Chromium starts");
        let mut process = Process(process);

        // Read to its end, so that Chromium never blocks on it. The end also says that the last of
        // its processes is gone.
        let (lines, output) = mpsc::channel();
        let stderr = BufReader::new(process.0.stderr.take().expect("stderr is piped"));
        thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(lines.send(line))));
        let address = loop {
            let line = output.recv_timeout(DEADLINE).expect("Chromium says where it listens");
            if let Some(address) = line.strip_prefix("DevTools listening on ") {
                break address.to_owned();
            }
        };

        let host = address.trim_start_matches("ws://").split('/').next().expect("a host");
        let stream = TcpStream::connect(host).expect("Chromium listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_nodelay(true).expect("no delay");
        let (socket, _) = tungstenite::client(address.as_str(), stream).expect("Chromium speaks WebSocket");
        let protocol = Rc::new(RefCell::new(Protocol { socket, last_id: 0, events: Vec::new() }));
        Browser { process, output, profile, protocol }
    }

    /// Opens one more window. All are visible: a hidden page would be given no animation frames.
    pub fn window(&self) -> Window {
        let mut protocol = self.protocol.borrow_mut();
        let target = protocol.call(None, "Target.createTarget", json!({ "url": "about:blank", "newWindow": true }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = protocol.call(None, "Target.attachToTarget", attach)["sessionId"].clone();
        let session = session.as_str().expect("a session").to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            protocol.call(Some(&session), domain, json!({}));
        }
        Window { protocol: self.protocol.clone(), session }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let asked = self.protocol.borrow_mut().send(None, "Browser.close", json!({})).is_ok();
        let deadline = Instant::now() + Duration::from_secs(5);
        while asked && self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        self.process.end();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

/// Chromium's first process. It ends with the test also where the test did not come as far as a [`Browser`]: left
/// behind, it would slow down all others.
struct Process(Child);

impl Process {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn chromium() -> PathBuf {
    if let Some(named) = env::var_os("CHROMIUM") {
        return named.into();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut all = env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    all.find(|file| file.is_file()).expect("Chromium is installed, or $CHROMIUM names it")
}

/// One window of a [`Browser`] with one page in it.
pub struct Window {
    protocol: Rc<RefCell<Protocol>>,
    session: String,
}

impl Window {
    /// Sends one command of the protocol and returns its result.
    pub fn call(&self, method: &str, parameters: Value) -> Value {
        self.protocol.borrow_mut().call(Some(&self.session), method, parameters)
    }

    /// Goes to an address and waits until the page and what it needs have loaded.
    pub fn open(&self, address: &str) {
        self.protocol.borrow_mut().forget(&self.session, "Page.loadEventFired");
        let answer = self.call("Page.navigate", json!({ "url": address }));
        assert_eq!(answer.get("errorText"), None, "going to {address}");
        self.protocol.borrow_mut().wait_for_event(&self.session, "Page.loadEventFired");
    }

    /// Goes back to the page before, and waits until it is there.
    pub fn go_back(&self) {
        let history = self.call("Page.getNavigationHistory", json!({}));
        let before = history["currentIndex"].as_u64().expect("an index") as usize - 1;
        self.protocol.borrow_mut().forget(&self.session, "Page.frameNavigated");
        self.call("Page.navigateToHistoryEntry", json!({ "entryId": history["entries"][before]["id"] }));
        self.protocol.borrow_mut().wait_for_event(&self.session, "Page.frameNavigated");
    }

    /// Clicks, and waits until the page to which that leads has loaded.
    pub fn click_and_load(&self, selector: &str) {
        self.protocol.borrow_mut().forget(&self.session, "Page.loadEventFired");
        self.click(selector);
        self.protocol.borrow_mut().wait_for_event(&self.session, "Page.loadEventFired");
    }

    /// Runs a script before every page of this window from now on.
    pub fn before_each_page(&self, script: &str) {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }));
    }

    /// The value of an expression in the page, of a promise once it is kept.
    pub fn evaluate(&self, expression: &str) -> Value {
        self.try_evaluate(expression).unwrap_or_else(|| panic!("no value of {expression} within {DEADLINE:?}"))
    }

    /// Waits until a condition holds in the page, looking again at every change of the document.
    pub fn wait_until(&self, condition: &str) {
        let kept = self.try_evaluate(&format!(
            "new Promise((done) => {{
               const look = () => {{ if ({condition}) {{ watcher.disconnect(); done(true); }} }};
               const watcher = new MutationObserver(look);
               const all = {{ subtree: true, childList: true, characterData: true, attributes: true }};
               watcher.observe(document, all);
               look();
             }})"
        ));
        if kept.is_none() {
            panic!("{condition} did not come true within {DEADLINE:?}: {}", self.evaluate("document.body.innerText"));
        }
    }

    /// The text that the first element of a selector shows.
    pub fn text(&self, selector: &str) -> String {
        let text = self.evaluate(&format!("document.querySelector({}).innerText", json!(selector)));
        text.as_str().expect("an element's text").trim().to_owned()
    }

    /// Clicks with the mouse, so that what is disabled or covered is not clicked.
    pub fn click(&self, selector: &str) {
        let at = self.evaluate(&format!(
            "(({{ x, y, width, height }}) => ({{ x: x + width / 2, y: y + height / 2 }}))
             (document.querySelector({}).getBoundingClientRect())",
            json!(selector)
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": at["x"], "y": at["y"], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses and releases the key of that name.
    pub fn press(&self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Makes the page see these media features.
    pub fn prefer(&self, features: &[(&str, &str)]) {
        let features: Vec<_> = features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Gives the page this many CSS pixels, each of `scale` by `scale` of the screen's.
    pub fn resize(&self, width: u32, height: u32, scale: f64) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// What this window's console holds against the page: errors, warnings, breaches of the policy.
    pub fn complaints(&self) -> Vec<String> {
        self.evaluate("1"); // what was said before this answer has arrived with it
        let protocol = self.protocol.borrow();
        let mine = protocol.events.iter().filter(|event| event["sessionId"] == self.session.as_str());
        let bad = mine.filter(|event| match event["method"].as_str() {
            Some("Log.entryAdded") => event["params"]["entry"]["level"] != "verbose",
            Some("Runtime.consoleAPICalled") => event["params"]["type"] != "log",
            Some("Runtime.exceptionThrown") => true,
            _ => false,
        });
        bad.map(|event| event["params"].to_string()).collect()
    }

    /// A picture of the window, as the base64 text of a PNG file.
    pub fn picture(&self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        picture["data"].as_str().expect("a picture").to_owned()
    }

    fn try_evaluate(&self, expression: &str) -> Option<Value> {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut protocol = self.protocol.borrow_mut();
        let mut answer = protocol.try_call(Some(&self.session), "Runtime.evaluate", parameters)?;
        assert_eq!(answer.get("exceptionDetails"), None, "evaluating {expression}");
        Some(answer["result"]["value"].take())
    }
}

struct Protocol {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    events: Vec<Value>,
}

impl Protocol {
    fn call(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        self.try_call(session, method, parameters)
            .unwrap_or_else(|| panic!("no answer to {method} within {DEADLINE:?}"))
    }

    /// `None` if no answer came before the deadline.
    fn try_call(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Option<Value> {
        let id = self.send(session, method, parameters).expect("Chromium is there");
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut message = self.read(deadline)?;
            if message["id"] == id {
                assert_eq!(message.get("error"), None, "{method}");
                return Some(message["result"].take());
            }
            self.events.push(message);
        }
    }

    fn send(&mut self, session: Option<&str>, method: &str, parameters: Value) -> tungstenite::Result<u64> {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        self.socket.send(message.to_string().into())?;
        Ok(self.last_id)
    }

    fn read(&mut self, deadline: Instant) -> Option<Value> {
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            self.socket.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a deadline");
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    return Some(serde_json::from_str(&text).expect("the protocol is JSON"));
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("Chromium went away: {error}"),
            }
        }
    }

    fn forget(&mut self, session: &str, method: &str) {
        self.events.retain(|event| event["sessionId"] != session || event["method"] != method);
    }

    fn wait_for_event(&mut self, session: &str, method: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.events.iter().any(|event| event["sessionId"] == session && event["method"] == method) {
            let message = self.read(deadline).unwrap_or_else(|| panic!("no {method} within {DEADLINE:?}"));
            self.events.push(message);
        }
    }
}
