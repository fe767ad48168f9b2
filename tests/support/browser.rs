//! Drives an installed browser, Chromium over its DevTools protocol and Firefox over WebDriver BiDi: as much of each as
//! the browser tests need.
//!
//! A few calls over tungstenite, which is in the tree already, instead of a driver crate: the usual
//! one brings about 140 crates, and types for every event of one version of the protocol, to which
//! the next browser need not keep. All waiting is for an answer or an event, with a deadline.

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

/// Which browser.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Chromium,
    Firefox,
}

/// One browser with an empty profile of its own, ended when this is dropped.
pub struct Browser {
    kind: Kind,
    process: Process,
    output: Receiver<String>,
    profile: PathBuf,
    protocol: Rc<RefCell<Protocol>>,
}

impl Browser {
    /// Starts Chromium: `$CHROMIUM`, or the first of its usual names on the path.
    pub fn chromium() -> Browser {
        let mut command = Command::new(program("CHROMIUM", &["chromium", "chromium-browser", "google-chrome"]));
        command
            .args("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run".split(' '))
            .args("--disable-background-networking --disable-component-update --disable-sync".split(' '))
            .args(["--remote-debugging-port=0", "about:blank"]);
        Browser::start(Kind::Chromium, command)
    }

    /// Starts Firefox: `$FIREFOX`, or the first of its usual names on the path.
    pub fn firefox() -> Browser {
        let mut command = Command::new(program("FIREFOX", &["firefox-esr", "firefox"]));
        command.args(["--headless", "--no-remote", "--remote-debugging-port", "0", "about:blank"]);
        Browser::start(Kind::Firefox, command)
    }

    /// Starts another one of this kind: another reader's.
    pub fn another(&self) -> Browser {
        match self.kind {
            Kind::Chromium => Browser::chromium(),
            Kind::Firefox => Browser::firefox(),
        }
    }

    fn start(kind: Kind, mut command: Command) -> Browser {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let profile = env::temp_dir().join(format!("live-likes-browser-{}-{number}-profile", process::id()));
        let _ = fs::remove_dir_all(&profile);
        fs::create_dir(&profile).expect("a directory for the profile");
        match kind {
            Kind::Chromium => command.arg(format!("--user-data-dir={}", profile.display())),
            Kind::Firefox => {
                let preferences: String = FIREFOX_PREFERENCES
                    .iter()
                    .map(|(name, value)| format!("user_pref(\"{name}\", {value});\n"))
                    .collect();
                fs::write(profile.join("user.js"), preferences).expect("its preferences");
                command.arg("--profile").arg(&profile)
            }
        };
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut process = Process(process.expect("the browser starts"));

        // Read to its end, so that the browser never blocks on it. The end also says that the last of
        // its processes is gone.
        let (lines, output) = mpsc::channel();
        let stderr = BufReader::new(process.0.stderr.take().expect("stderr is piped"));
        thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(lines.send(line))));
        let address = loop {
            let line = output.recv_timeout(DEADLINE).expect("the browser says where it listens");
            if let Some(address) = line.strip_prefix("DevTools listening on ") {
                break address.to_owned();
            }
            if let Some(address) = line.strip_prefix("WebDriver BiDi listening on ") {
                break format!("{address}/session");
            }
        };

        let host = address.trim_start_matches("ws://").split('/').next().expect("a host");
        let stream = TcpStream::connect(host).expect("the browser listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_nodelay(true).expect("no delay");
        let (socket, _) = tungstenite::client(address.as_str(), stream).expect("the browser speaks WebSocket");
        let mut protocol = Protocol { socket, last_id: 0, events: Vec::new() };
        if kind == Kind::Firefox {
            protocol.call(None, "session.new", json!({ "capabilities": {} }));
            let events = ["log.entryAdded", "browsingContext.load"];
            protocol.call(None, "session.subscribe", json!({ "events": events }));
        }
        Browser { kind, process, output, profile, protocol: Rc::new(RefCell::new(protocol)) }
    }

    pub fn is_chromium(&self) -> bool {
        self.kind == Kind::Chromium
    }

    /// Opens one more window. All are visible: a hidden page would be given no animation frames.
    pub fn window(&self) -> Window {
        let mut protocol = self.protocol.borrow_mut();
        let page = match self.kind {
            Kind::Chromium => {
                let target =
                    protocol.call(None, "Target.createTarget", json!({ "url": "about:blank", "newWindow": true }));
                let attach = json!({ "targetId": target["targetId"], "flatten": true });
                let session = protocol.call(None, "Target.attachToTarget", attach)["sessionId"].clone();
                for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
                    protocol.call(session.as_str(), domain, json!({}));
                }
                session
            }
            Kind::Firefox => {
                protocol.call(None, "browsingContext.create", json!({ "type": "window" }))["context"].clone()
            }
        };
        let page = page.as_str().expect("a page").to_owned();
        Window { kind: self.kind, protocol: self.protocol.clone(), page }
    }
}

/// That Firefox asks nobody for anything, and adds no waits of its own to those of a page that connects again.
const FIREFOX_PREFERENCES: [(&str, &str); 19] = [
    ("app.normandy.enabled", "false"),
    ("app.update.enabled", "false"),
    ("browser.aboutwelcome.enabled", "false"),
    ("browser.newtabpage.enabled", "false"),
    ("browser.region.network.url", "\"\""),
    ("browser.safebrowsing.malware.enabled", "false"),
    ("browser.safebrowsing.phishing.enabled", "false"),
    ("browser.search.update", "false"),
    ("browser.shell.checkDefaultBrowser", "false"),
    ("browser.startup.page", "0"),
    ("datareporting.policy.dataSubmissionEnabled", "false"),
    ("extensions.getAddons.cache.enabled", "false"),
    ("extensions.systemAddon.update.enabled", "false"),
    ("extensions.update.enabled", "false"),
    ("network.captive-portal-service.enabled", "false"),
    ("network.connectivity-service.enabled", "false"),
    ("network.websocket.delay-failed-reconnects", "false"),
    ("services.settings.server", "\"data:,#\""),
    ("toolkit.telemetry.enabled", "false"),
];

impl Drop for Browser {
    fn drop(&mut self) {
        let close = if self.kind == Kind::Chromium { "Browser.close" } else { "browser.close" };
        let asked = self.protocol.borrow_mut().send(None, close, json!({})).is_ok();
        let deadline = Instant::now() + Duration::from_secs(5);
        while asked && self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        self.process.end();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

/// A browser's first process. It ends with the test also where the test did not come as far as a [`Browser`]: left
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

/// What the variable names, or the first of these on the path.
fn program(variable: &str, names: &[&str]) -> PathBuf {
    if let Some(named) = env::var_os(variable) {
        return named.into();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut all = env::split_paths(&path).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    all.find(|file| file.is_file()).unwrap_or_else(|| panic!("{} is installed, or ${variable} names it", names[0]))
}

/// One window of a [`Browser`] with one page in it.
pub struct Window {
    kind: Kind,
    protocol: Rc<RefCell<Protocol>>,
    /// The session of its page in Chromium, its browsing context in Firefox.
    page: String,
}

impl Window {
    /// Sends Chromium a command about this page, and returns its result.
    pub fn call(&self, method: &str, parameters: Value) -> Value {
        assert!(self.kind == Kind::Chromium, "Firefox has no {method}");
        self.protocol.borrow_mut().call(Some(&self.page), method, parameters)
    }

    /// Sends Firefox a command about this page, and returns its result.
    fn bidi(&self, method: &str, mut parameters: Value) -> Value {
        parameters["context"] = self.page.as_str().into();
        self.protocol.borrow_mut().call(None, method, parameters)
    }

    /// The same for a command that takes several pages.
    fn bidi_all(&self, method: &str, mut parameters: Value) -> Value {
        parameters["contexts"] = json!([self.page]);
        self.protocol.borrow_mut().call(None, method, parameters)
    }

    /// Goes to an address and waits until the page and what it needs have loaded.
    pub fn open(&self, address: &str) {
        match self.kind {
            Kind::Chromium => {
                self.protocol.borrow_mut().forget(&self.page, "Page.loadEventFired");
                let answer = self.call("Page.navigate", json!({ "url": address }));
                assert_eq!(answer.get("errorText"), None, "going to {address}");
                self.protocol.borrow_mut().wait_for_event(&self.page, "Page.loadEventFired");
            }
            Kind::Firefox => {
                self.bidi("browsingContext.navigate", json!({ "url": address, "wait": "complete" }));
            }
        }
    }

    /// Goes back to the page before, and waits until it is there.
    pub fn go_back(&self) {
        match self.kind {
            Kind::Chromium => {
                let history = self.call("Page.getNavigationHistory", json!({}));
                let before = history["currentIndex"].as_u64().expect("an index") as usize - 1;
                self.protocol.borrow_mut().forget(&self.page, "Page.frameNavigated");
                self.call("Page.navigateToHistoryEntry", json!({ "entryId": history["entries"][before]["id"] }));
                self.protocol.borrow_mut().wait_for_event(&self.page, "Page.frameNavigated");
            }
            Kind::Firefox => {
                self.bidi("browsingContext.traverseHistory", json!({ "delta": -1 }));
            }
        }
    }

    /// Clicks, and waits until the page to which that leads has loaded.
    pub fn click_and_load(&self, selector: &str) {
        let loaded = if self.kind == Kind::Chromium { "Page.loadEventFired" } else { "browsingContext.load" };
        self.protocol.borrow_mut().forget(&self.page, loaded);
        self.click(selector);
        self.protocol.borrow_mut().wait_for_event(&self.page, loaded);
    }

    /// Runs a script before every page of this window from now on. In Firefox it is a function's body.
    pub fn before_each_page(&self, script: &str) {
        match self.kind {
            Kind::Chromium => self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })),
            Kind::Firefox => self
                .bidi_all("script.addPreloadScript", json!({ "functionDeclaration": format!("() => {{ {script} }}") })),
        };
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
        match self.kind {
            Kind::Chromium => {
                for kind in ["mousePressed", "mouseReleased"] {
                    let event = json!({ "type": kind, "x": at["x"], "y": at["y"], "button": "left", "clickCount": 1 });
                    self.call("Input.dispatchMouseEvent", event);
                }
            }
            Kind::Firefox => {
                let actions = json!([
                    { "type": "pointerMove", "x": at["x"].as_f64().map(f64::round), "y": at["y"].as_f64().map(f64::round) },
                    { "type": "pointerDown", "button": 0 },
                    { "type": "pointerUp", "button": 0 },
                ]);
                self.act(json!({ "type": "pointer", "id": "mouse", "actions": actions }));
            }
        }
    }

    /// Presses and releases the key of that name.
    pub fn press(&self, key: &str, code: u32) {
        match self.kind {
            Kind::Chromium => {
                for kind in ["keyDown", "keyUp"] {
                    let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
                    self.call("Input.dispatchKeyEvent", event);
                }
            }
            Kind::Firefox => {
                let value = if key == "Tab" { "\u{e004}" } else { key };
                let actions = json!([{ "type": "keyDown", "value": value }, { "type": "keyUp", "value": value }]);
                self.act(json!({ "type": "key", "id": "keyboard", "actions": actions }));
            }
        }
    }

    fn act(&self, source: Value) {
        self.bidi("input.performActions", json!({ "actions": [source] }));
    }

    /// Makes the page see these media features. Firefox takes none of them while it runs.
    pub fn prefer(&self, features: &[(&str, &str)]) {
        let features: Vec<_> = features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Gives the page this many CSS pixels, each of `scale` by `scale` of the screen's.
    pub fn resize(&self, width: u32, height: u32, scale: f64) {
        match self.kind {
            Kind::Chromium => {
                let size = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": false });
                self.call("Emulation.setDeviceMetricsOverride", size)
            }
            Kind::Firefox => {
                let viewport = json!({ "width": width, "height": height });
                self.bidi("browsingContext.setViewport", json!({ "viewport": viewport, "devicePixelRatio": scale }))
            }
        };
    }

    /// Has scripts run in the pages to come, or not. Firefox has no such command.
    pub fn allow_scripts(&self, allowed: bool) {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": !allowed }));
    }

    /// Takes the network from the page, or gives it back.
    pub fn go_offline(&self, offline: bool) {
        match self.kind {
            Kind::Chromium => {
                let rates =
                    json!({ "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
                self.call("Network.emulateNetworkConditions", rates)
            }
            Kind::Firefox => {
                let conditions = if offline { json!({ "type": "offline" }) } else { Value::Null };
                self.bidi_all("emulation.setNetworkConditions", json!({ "networkConditions": conditions }))
            }
        };
    }

    /// What this window's console holds against the page: errors, warnings, breaches of the policy.
    pub fn complaints(&self) -> Vec<String> {
        self.evaluate("1"); // what was said before this answer has arrived with it
        let protocol = self.protocol.borrow();
        let mine = protocol.events.iter().filter(|event| is_about(event, &self.page));
        let bad = mine.filter(|event| match event["method"].as_str() {
            Some("Log.entryAdded") => event["params"]["entry"]["level"] != "verbose",
            Some("Runtime.consoleAPICalled") => event["params"]["type"] != "log",
            Some("Runtime.exceptionThrown") => true,
            Some("log.entryAdded") => event["params"]["level"] != "info",
            _ => false,
        });
        bad.map(|event| event["params"].to_string()).collect()
    }

    /// A picture of the window, as the base64 text of a PNG file.
    pub fn picture(&self) -> String {
        let picture = match self.kind {
            Kind::Chromium => self.call("Page.captureScreenshot", json!({ "format": "png" })),
            Kind::Firefox => self.bidi("browsingContext.captureScreenshot", json!({})),
        };
        picture["data"].as_str().expect("a picture").to_owned()
    }

    fn try_evaluate(&self, expression: &str) -> Option<Value> {
        let mut protocol = self.protocol.borrow_mut();
        match self.kind {
            Kind::Chromium => {
                let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
                let mut answer = protocol.try_call(Some(&self.page), "Runtime.evaluate", parameters)?;
                assert_eq!(answer.get("exceptionDetails"), None, "evaluating {expression}");
                Some(answer["result"]["value"].take())
            }
            Kind::Firefox => {
                let target = json!({ "context": self.page });
                let parameters = json!({ "expression": expression, "awaitPromise": true, "target": target });
                let answer = protocol.try_call(None, "script.evaluate", parameters)?;
                assert_eq!(
                    answer["type"], "success",
                    "evaluating {expression}: {}",
                    answer["exceptionDetails"]["text"]
                );
                Some(value_of(&answer["result"]))
            }
        }
    }
}

/// The value that WebDriver BiDi describes.
fn value_of(described: &Value) -> Value {
    let value = &described["value"];
    match described["type"].as_str() {
        Some("string" | "number" | "boolean") => value.clone(),
        Some("array") => value.as_array().into_iter().flatten().map(value_of).collect(),
        Some("object") => {
            let members = value.as_array().into_iter().flatten();
            members.map(|member| (member[0].as_str().unwrap_or_default().to_owned(), value_of(&member[1]))).collect()
        }
        _ => Value::Null,
    }
}

/// Whether an event is one of that page's.
fn is_about(event: &Value, page: &str) -> bool {
    let named = [&event["sessionId"], &event["params"]["context"], &event["params"]["source"]["context"]];
    named.iter().any(|named| **named == page)
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
        let id = self.send(session, method, parameters).expect("the browser is there");
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut message = self.read(deadline)?;
            if message["id"] == id {
                assert_eq!(message.get("error"), None, "{method}: {}", message["message"]);
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
                Err(error) => panic!("the browser went away: {error}"),
            }
        }
    }

    fn forget(&mut self, page: &str, method: &str) {
        self.events.retain(|event| !is_about(event, page) || event["method"] != method);
    }

    fn wait_for_event(&mut self, page: &str, method: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.events.iter().any(|event| is_about(event, page) && event["method"] == method) {
            let message = self.read(deadline).unwrap_or_else(|| panic!("no {method} within {DEADLINE:?}"));
            self.events.push(message);
        }
    }
}
