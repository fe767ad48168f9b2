//! Likes: what the page says of one is so, whatever becomes of its message, its answer and its connection.

use crate::puppet::Puppet;
use crate::relay::Relay;
use crate::{BUTTON, Browser, CLOCK, Counter, LIVE, NO_WAITS, NOTE, RECONNECTING, Window, shows};
use serde_json::json;
use std::env;

const FORGETS: Option<bool> = None;

in_each_browser! {
    a_like_is_shown_at_once_and_called_liked_when_it_is_answered
    a_refused_like_is_taken_back_with_the_reason_and_can_be_given_again
    a_like_whose_answer_was_lost_is_said_again_where_it_counts_once
    a_like_is_not_said_again_to_a_store_that_may_have_forgotten_it
    a_change_that_is_not_answered_in_ten_seconds_is_said_again_on_another_connection
    a_click_without_a_connection_is_pending_until_there_is_one
    of_several_changes_the_last_holds
    of_two_versions_the_higher_is_shown_whichever_comes_first
    where_the_browser_keeps_nothing_a_visitor_lives_as_long_as_the_page
    seq_rises_whatever_the_clock_says_and_with_each_window
    on_a_text_file_each_page_load_likes_once_and_nobody_is_given_a_name
    #[cfg(feature = "sqlite")] in_a_database_the_button_is_a_toggle_that_all_windows_of_a_visitor_share
    #[cfg(feature = "sqlite")] an_unlike_that_the_server_refuses_leaves_the_like
    #[cfg(feature = "sqlite")]
    on_a_bad_network_nothing_false_is_said_and_nothing_counts_twice
}

fn a_like_is_shown_at_once_and_called_liked_when_it_is_answered(browser: &Browser) {
    let window = browser.window();
    for (remembers, pressed) in [(None, None), (Some(false), Some("false"))] {
        let puppet = Puppet::start();
        window.open(&puppet.url());
        let mut connection = puppet.next_joined("a", 16, remembers);
        window.wait_until(LIVE);
        assert_eq!(button(&window), ("Like".into(), pressed.map(str::to_owned), "false".into()));

        window.press("Tab", 9);
        window.press(" ", 32);
        assert_eq!(window.text(BUTTON), "Liking…");
        let like = connection.hear_change("like");
        connection.say(&json!({ "type": "count", "numLikes": 17, "version": 17 })); // somebody else's
        window.wait_until(&shows("17"));
        assert_eq!(window.text(BUTTON), "Liking…");
        assert_eq!(button(&window).1.as_deref(), pressed);

        connection.grant(&like, 18, remembers.map(|_| true));
        window.wait_until(&says("Liked"));
        window.wait_until(&shows("18"));
        assert_eq!(window.evaluate("document.activeElement.className"), BUTTON[1..], "it keeps the focus");
        match remembers {
            None => assert_eq!(button(&window), ("Liked".into(), None, "true".into()), "one a page load"),
            Some(_) => assert_eq!(button(&window), ("Liked".into(), Some("true".into()), "false".into())),
        }
    }
}

fn a_refused_like_is_taken_back_with_the_reason_and_can_be_given_again(browser: &Browser) {
    let window = browser.window();
    for remembers in [None, Some(false)] {
        let puppet = Puppet::start();
        window.open(&puppet.url());
        let mut connection = puppet.next_joined("a", 16, remembers);
        window.wait_until(LIVE);
        window.click(BUTTON);
        let refused = connection.hear_change("like");
        connection.refuse(&refused, 503, "likes cannot be saved just now; try again later");
        window.wait_until(&says("Like"));
        assert_eq!(window.text(NOTE), "Likes cannot be saved just now; try again later.");
        connection.say(&json!({ "type": "count", "numLikes": 17, "version": 17 }));
        window.wait_until(&shows("17"));
        assert_eq!(button(&window).0, "Like");

        window.click(BUTTON);
        assert_eq!(window.text(NOTE), "");
        let like = connection.hear_change("like");
        assert!(like["seq"].as_u64() > refused["seq"].as_u64() && like["ref"] != refused["ref"]);
        connection.grant(&like, 18, remembers.map(|_| true));
        window.wait_until(&says("Liked"));
    }
}

fn a_like_whose_answer_was_lost_is_said_again_where_it_counts_once(browser: &Browser) {
    let window = browser.window();
    window.before_each_page(NO_WAITS);
    for (remembers, boots) in [(None, ["a", "a"]), (Some(false), ["a", "b"])] {
        let puppet = Puppet::start();
        window.open(&puppet.url());
        let mut connection = puppet.next_joined(boots[0], 16, remembers);
        window.wait_until(LIVE);
        window.click(BUTTON);
        let like = connection.hear_change("like");
        drop(connection);
        let mut connection = puppet.next_joined(boots[1], 17, remembers.map(|_| true));
        assert_eq!(connection.hear(), like, "word for word");
        assert_eq!(window.text(BUTTON), "Liking…");
        connection.grant(&like, 17, remembers.map(|_| true));
        window.wait_until(&says("Liked"));
        assert_eq!(window.text(NOTE), "");
    }
}

fn a_like_is_not_said_again_to_a_store_that_may_have_forgotten_it(browser: &Browser) {
    let window = browser.window();
    window.before_each_page(CLOCK);
    window.before_each_page(NO_WAITS);
    // Another start of the server; then the same one after an hour.
    for (boots, hour) in [(["a", "b"], false), (["a", "a"], true)] {
        let puppet = Puppet::start();
        window.open(&puppet.url());
        let mut connection = puppet.next_joined(boots[0], 16, FORGETS);
        window.wait_until(LIVE);
        window.click(BUTTON);
        let lost = connection.hear_change("like");
        if hour {
            window.evaluate("sleep(3_600)");
        }
        drop(connection);
        let mut connection = puppet.next_joined(boots[1], 17, FORGETS);
        window.wait_until(&says("Like"));
        assert!(window.text(NOTE).contains("not known whether your like counts"), "{}", window.text(NOTE));
        window.click(BUTTON);
        let like = connection.hear_change("like");
        assert_ne!(like["ref"], lost["ref"]);
        connection.grant(&like, 18, FORGETS);
        window.wait_until(&says("Liked"));
    }
}

fn a_change_that_is_not_answered_in_ten_seconds_is_said_again_on_another_connection(browser: &Browser) {
    let puppet = Puppet::start();
    let window = browser.window();
    window.before_each_page(CLOCK);
    window.before_each_page(NO_WAITS);
    window.open(&puppet.url());
    let mut deaf = puppet.next_joined("a", 16, Some(false));
    window.wait_until(LIVE);
    window.click(BUTTON);
    let like = deaf.hear_change("like");
    window.evaluate("pass(9)");
    deaf.say(&json!({ "type": "count", "numLikes": 17, "version": 17 })); // which is no answer
    window.wait_until(&shows("17"));
    assert_eq!(window.evaluate(RECONNECTING), false);
    window.evaluate("pass(2)");
    let mut connection = puppet.next_joined("a", 17, Some(false));
    deaf.wait_for_its_end();
    assert_eq!(connection.hear(), like);
    connection.grant(&like, 18, Some(true));
    window.wait_until(&says("Liked"));
    window.evaluate("pass(11)");
    assert_eq!(window.evaluate(LIVE), true, "nothing is waited for any more");
}

fn a_click_without_a_connection_is_pending_until_there_is_one(browser: &Browser) {
    let window = browser.window();
    window.before_each_page(NO_WAITS);
    for remembers in [None, Some(false)] {
        let puppet = Puppet::start();
        window.open(&puppet.url());
        let early = puppet.next_watching();
        window.click(BUTTON);
        assert_eq!(window.text(BUTTON), "Liking…");
        drop(early);
        // A text store that has been started anew cannot have counted what was never said.
        let mut connection = puppet.next_joined("b", 16, remembers);
        let like = connection.hear_change("like");
        connection.grant(&like, 17, remembers.map(|_| true));
        window.wait_until(&says("Liked"));
    }
}

fn of_several_changes_the_last_holds(browser: &Browser) {
    let puppet = Puppet::start();
    let window = browser.window();
    window.open(&puppet.url());
    let mut connection = puppet.next_joined("a", 16, Some(false));
    window.wait_until(LIVE);
    watch_labels(&window);
    window.click(BUTTON);
    window.click(BUTTON);
    let (like, unlike) = (connection.hear_change("like"), connection.hear_change("unlike"));
    assert!(unlike["seq"].as_u64() > like["seq"].as_u64());
    assert_eq!((&unlike["visitor"], &like["visitor"]), (&json!(connection.visitor), &json!(connection.visitor)));
    connection.grant(&like, 17, Some(true));
    window.wait_until(&shows("17"));
    connection.say(&json!({ "type": "answer", "ref": unlike["ref"], "numLikes": 16, "version": 18, "liked": false }));
    window.wait_until(&says("Like"));
    assert_eq!(window.evaluate("labels.join()"), "Liking…,Unliking…,Like");
}

fn of_two_versions_the_higher_is_shown_whichever_comes_first(browser: &Browser) {
    let puppet = Puppet::start();
    let window = browser.window();
    window.before_each_page(NO_WAITS);
    window.open(&puppet.url());
    let mut connection = puppet.next_joined("a", 16, Some(false));
    window.wait_until(LIVE);
    window.click(BUTTON);
    let like = connection.hear_change("like");
    connection.say(&json!({ "type": "count", "numLikes": 40, "version": 18 }));
    connection.grant(&like, 17, Some(true));
    window.wait_until(&says("Liked"));
    window.wait_until(&shows("40"));
    connection.say(&json!({ "type": "count", "numLikes": 39, "version": 19, "liked": false }));
    window.wait_until(&shows("39"));
    assert_eq!(window.text(BUTTON), "Like", "another window of this visitor's took it back");
    window.click(BUTTON);
    let like = connection.hear_change("like");
    connection.say(&json!({ "type": "count", "numLikes": 39, "version": 21, "liked": false }));
    connection.grant(&like, 20, Some(true)); // held up until after another window had taken it back again
    window.wait_until(&says("Like"));

    // A store that was put back to an older state begins anew.
    drop(connection);
    let _held = puppet.next_joined("b", 3, Some(true));
    window.wait_until(&shows("3"));
    window.wait_until(&says("Liked"));
}

fn where_the_browser_keeps_nothing_a_visitor_lives_as_long_as_the_page(browser: &Browser) {
    let puppet = Puppet::start();
    let window = browser.window();
    window.before_each_page(NO_WAITS);
    window.before_each_page("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })");
    window.open(&puppet.url());
    let mut connection = puppet.next_joined("a", 16, Some(false));
    window.wait_until(LIVE);
    let visitor = connection.visitor.clone();
    assert!((16..=64).contains(&visitor.len()) && visitor.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    window.click(BUTTON);
    let like = connection.hear_change("like");
    assert_eq!(like["visitor"], visitor);
    drop(connection);
    let mut connection = puppet.next_joined("a", 16, Some(false));
    assert_eq!(connection.hear(), like);
    assert_eq!(connection.visitor, visitor);
    window.open(&puppet.url());
    assert_ne!(puppet.next_watching().visitor, visitor);
}

fn seq_rises_whatever_the_clock_says_and_with_each_window(browser: &Browser) {
    let puppet = Puppet::start();
    let window = browser.window();
    let mut last = 0;
    for clock in ["5_000", "4_000", "9_000"] {
        window.before_each_page(&format!("Date.now = () => {clock}"));
        window.open(&puppet.url());
        let mut connection = puppet.next_joined("a", 16, Some(false));
        window.wait_until(LIVE);
        for kind in ["like", "unlike"] {
            window.click(BUTTON);
            let change = connection.hear_change(kind);
            let seq = change["seq"].as_u64().expect("a seq");
            assert!(seq > last && seq < 1 << 53, "{seq} after {last}");
            last = seq;
        }
    }
    // What cannot be a number that rises is not gone on from.
    window
        .evaluate("localStorage.setItem('live-likes', JSON.stringify({ visitor: 'a'.repeat(16), seq: 2 ** 53 - 1 }))");
    window.open(&puppet.url());
    let mut connection = puppet.next_joined("a", 16, Some(false));
    window.wait_until(LIVE);
    window.click(BUTTON);
    assert_eq!(connection.hear_change("like")["seq"], 9_000);
}

fn on_a_text_file_each_page_load_likes_once_and_nobody_is_given_a_name(browser: &Browser) {
    let counter = Counter::start("16");
    let window = browser.window();
    for count in ["17", "18"] {
        window.open(&counter.url());
        window.wait_until(LIVE);
        assert_eq!(window.text(BUTTON), "Like");
        window.click(BUTTON);
        window.wait_until(&shows(count));
        window.wait_until(&says("Liked"));
        window.click(BUTTON);
        window.evaluate("likeTweetWs()");
    }
    assert_eq!(counter.likes().count(), 18);
    assert_eq!(window.evaluate("localStorage.length"), 0);
}

#[cfg(feature = "sqlite")]
fn in_a_database_the_button_is_a_toggle_that_all_windows_of_a_visitor_share(browser: &Browser) {
    let counter = Counter::start_database();
    let (one, other) = (browser.window(), browser.window());
    for window in [&one, &other] {
        window.open(&counter.url());
        window.wait_until(LIVE);
        assert_eq!(window.evaluate("localStorage.length"), 0, "who only reads is given no name");
    }
    one.click(BUTTON);
    for window in [&one, &other] {
        window.wait_until(&says("Liked"));
        window.wait_until(&shows("1"));
    }
    other.open(&counter.url());
    other.wait_until(&says("Liked"));
    assert_eq!(button(&other).1.as_deref(), Some("true"), "after a reload too");
    other.click(BUTTON);
    for window in [&one, &other] {
        window.wait_until(&says("Like"));
        window.wait_until(&shows("0"));
    }
    one.click(BUTTON);
    other.wait_until(&says("Liked"));
    assert_eq!(counter.likes().count(), 1);
}

#[cfg(feature = "sqlite")]
fn an_unlike_that_the_server_refuses_leaves_the_like(browser: &Browser) {
    let mut counter = Counter::start_database();
    counter.stop();
    counter.limits.likes_per_connection = Some(1);
    counter.restart();
    let window = browser.window();
    window.open(&counter.url());
    window.wait_until(LIVE);
    window.click(BUTTON);
    window.wait_until(&says("Liked"));
    watch_labels(&window);
    window.click(BUTTON);
    window.wait_until("labels.length === 2");
    assert_eq!(window.evaluate("labels.join()"), "Unliking…,Liked");
    assert_eq!(window.text(NOTE), "Too many likes: at most 1 per connection are allowed.");
    assert_eq!((button(&window).1.as_deref(), counter.likes().count()), (Some("true"), 1));
    assert_eq!(window.evaluate("document.activeElement.className"), BUTTON[1..], "it keeps the focus");
}

/// The reader likes and takes it back, again and again, and so does somebody else, while the network delays, loses and
/// cuts. Whenever the page has made up its mind, what it says is what the server has.
#[cfg(feature = "sqlite")]
fn on_a_bad_network_nothing_false_is_said_and_nothing_counts_twice(browser: &Browser) {
    let clicks: u64 = env::var("CLICKS").map_or(100, |clicks| clicks.parse().expect("CLICKS is a number"));
    let counter = Counter::start_database();
    let relay = Relay::start(counter.addr(), "", None);
    let window = browser.window();
    window.before_each_page(CLOCK);
    window.before_each_page(NO_WAITS);
    window.open(&format!("http://{}/", relay.addr));
    window.wait_until(LIVE);
    let (mut likes, mut silences) = (0, 0);
    for click in 1..=clicks {
        relay.spoil(150, click * 7_919);
        window.click(BUTTON);
        if click % 5 == 0 {
            counter.likes().like().expect("a like");
        }
        let label = window.evaluate(SETTLED);
        let liked = label == "Liked";
        assert!(liked || label == "Like", "{label}");
        assert_eq!(counter.likes().count(), click / 5 + u64::from(liked), "after click {click} it says {label}");
        likes += u64::from(liked);
        if click % 20 == 0 {
            relay.hold(true);
            window.evaluate("sleep(46); document.dispatchEvent(new Event('visibilitychange'))");
            assert_eq!(window.evaluate(LIVE), false, "after a silence of 46 s");
            relay.hold(false);
            silences += 1;
        }
    }
    eprintln!("{clicks} clicks, {likes} of them ended in a like; {silences} silences");
    relay.spoil(0, 1);
    window.evaluate("pass(11)");
    window.wait_until(LIVE);
}

/// What the button says once nothing is pending. A connection that is silent for longer than 0.3 s is one for 11 s by the
/// page's clock.
const SETTLED: &str = "new Promise((done) => {
  let began = performance.now();
  const look = () => {
    const { like } = document.querySelector('.tweet__footer__actions__like').dataset;
    if (like === 'none' || like === 'liked') {
      return done(document.querySelector('.tweet__footer__actions__label').textContent);
    }
    if (performance.now() - began > 300) {
      pass(11);
      began = performance.now();
    }
    requestAnimationFrame(look);
  };
  look();
})";

/// What the button says, whether it is pressed, and whether it is disabled.
fn button(window: &Window) -> (String, Option<String>, String) {
    let attribute = |name: &str| {
        let value = window.evaluate(&format!("document.querySelector('{BUTTON}').getAttribute('{name}')"));
        value.as_str().map(str::to_owned)
    };
    (window.text(BUTTON), attribute("aria-pressed"), attribute("aria-disabled").expect("it says so"))
}

/// The condition that the button says this.
pub fn says(label: &str) -> String {
    format!("document.querySelector('.tweet__footer__actions__label').textContent === '{label}'")
}

/// Keeps a list of what the button has said.
fn watch_labels(window: &Window) {
    window.evaluate(
        "globalThis.labels = [];
         const labelled = new MutationObserver((changes) => changes.forEach(({ addedNodes }) => {
           if (addedNodes.length) labels.push(addedNodes[0].data);
         }));
         labelled.observe(document.querySelector('.tweet__footer__actions__label'), { childList: true })",
    );
}
