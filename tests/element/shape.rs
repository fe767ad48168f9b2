//! The element itself: its attributes, its life in a page, its events, its looks, and what is heard of it.

use crate::{Browser, FIRST, Site, Window, gate::Kind, running::eventually, shown, wait};
use serde_json::{Value, json};

in_each_browser! {
    twenty_buttons_share_one_connection_from_the_first_near_the_viewport_to_the_last
    more_buttons_than_a_client_may_watch_are_watched_where_they_are_seen
    attributes_may_change_and_the_element_may_be_moved_removed_and_cloned
    events_bubble_out_of_all_trees_and_methods_say_when_it_is_done
    a_refused_like_is_taken_back_told_of_and_can_be_given_again
    a_post_that_may_not_exist_is_told_of_in_the_server_s_words
    words_and_numbers_are_those_of_the_page
    a_second_definition_does_no_harm_and_a_form_is_upgraded_in_place
}

in_chromium! {
    it_looks_as_the_page_does_and_as_the_reader_prefers
}

const INSIDE: &str = "document.querySelector('live-likes').shadowRoot.querySelector";

/// What is said of the first button: its name, whether it is pressed, whether it is disabled.
fn heard(window: &Window) -> Value {
    window.evaluate(&format!(
        "(({{ ariaLabel, ariaPressed, disabled }}) => [ariaLabel, ariaPressed, disabled])({INSIDE}('button'))"
    ))
}

fn twenty_buttons_share_one_connection_from_the_first_near_the_viewport_to_the_last(browser: &Browser) {
    let site = Site::start();
    let far = |number| format!("<i><live-likes post=\"p{number}\"></live-likes></i>");
    let body = (0..20).map(far).collect::<String>();
    let page = site.page("/", &format!("<main hidden>{body}</main><div style=\"height: 5000px\"></div>"));
    let window = browser.window();
    window.open(&page);
    window.evaluate("customElements.whenDefined('live-likes')");
    window.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
    assert_eq!(site.gate.requests("/liveLikes"), [""; 0], "nothing is seen, and so nothing asked");

    window.evaluate("document.querySelector('div').after(document.querySelector('main')); document.querySelector('main').hidden = false");
    window.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
    assert_eq!(site.gate.requests("/liveLikes"), [""; 0], "they are far below");
    window.evaluate("scrollTo(0, 1e6)");
    wait(&window, "[...document.querySelectorAll('live-likes')].some((it) => it.count === 0)");
    window.evaluate("document.querySelector('div').remove()");
    wait(&window, "[...document.querySelectorAll('live-likes')].every((it) => it.count === 0)");
    assert_eq!(site.gate.requests("/liveLikes").len(), 1);
    site.posts.post("p19").expect("a post").like().expect("a like");
    wait(&window, "document.querySelectorAll('live-likes')[19].count === 1");

    window.evaluate("document.querySelectorAll('i:nth-child(n + 2)').forEach((it) => it.remove())");
    assert_eq!(site.gate.open(Kind::WebSocket), 1);
    eventually("the server is told of those that are gone", || site.posts.watching() == 1);
    window.evaluate("document.querySelector('i').remove()");
    eventually("the connection is closed", || site.gate.open(Kind::WebSocket) == 0);
    window.evaluate("document.querySelector('main').innerHTML = '<live-likes post=p19></live-likes>'");
    wait(&window, "it.count === 1");
    assert_eq!(site.gate.requests("/liveLikes").len(), 2);
}

fn more_buttons_than_a_client_may_watch_are_watched_where_they_are_seen(browser: &Browser) {
    let site = Site::start();
    let body: String =
        (0..150).map(|n| format!("<p style=\"height: 200px\"><live-likes post=\"p{n}\"></live-likes>")).collect();
    let page = site.page("/", &body);
    let window = browser.window();
    window.open(&page);
    window.evaluate(
        "const refusals = [];
         addEventListener('live-likes:error', ({ detail }) => refusals.push(detail.problem));",
    );
    for number in (0..150).step_by(3) {
        window.evaluate(&format!("document.querySelectorAll('live-likes')[{number}].scrollIntoView()"));
        wait(&window, &format!("document.querySelectorAll('live-likes')[{number}].count === 0"));
    }
    site.posts.post("p147").expect("a post").like().expect("a like");
    wait(&window, "document.querySelectorAll('live-likes')[147].count === 1");
    assert_eq!(window.evaluate("refusals.join()"), "");
    assert!(site.posts.watching() < 100, "{}", site.posts.watching());
}

fn attributes_may_change_and_the_element_may_be_moved_removed_and_cloned(browser: &Browser) {
    let site = Site::start();
    let other = Site::start();
    for (post, likes) in [("a", 1), ("b", 2), ("/caf\u{e9}/", 3)] {
        let post = site.posts.post(post).expect("a post");
        (0..likes).for_each(|_| assert!(post.like().is_ok()));
    }
    let page = site.page("/caf%C3%A9/", "<main><live-likes></live-likes></main><aside></aside>");
    let window = browser.window();
    window.open(&page);
    wait(&window, "it.count === 3"); // the path of the page

    window.evaluate(&format!("{FIRST}.setAttribute('post', 'a')"));
    wait(&window, "it.count === 1");
    window.evaluate(&format!("{FIRST}.like()"));
    wait(&window, "it.liked && it.count === 2");
    window.evaluate(&format!("{FIRST}.setAttribute('post', 'b')"));
    assert_eq!(window.evaluate(&format!("{FIRST}.matches('[liked], :state(liked)')")), false, "of another post");
    wait(&window, "it.count === 2 && !it.liked");
    eventually("one post is watched", || site.posts.watching() == 1);

    // Moved, within one task or over a while.
    let before = site.gate.requests("/liveLikes").len();
    window.evaluate(&format!("document.querySelector('aside').append({FIRST})"));
    wait(&window, "it.count === 2");
    assert_eq!((site.gate.requests("/liveLikes").len(), site.gate.open(Kind::WebSocket)), (before, 1));
    window.evaluate(&format!("globalThis.kept = {FIRST}; kept.remove()"));
    eventually("it is let go", || site.gate.open(Kind::WebSocket) == 0);
    site.posts.post("b").expect("a post").like().expect("a like");
    window.evaluate("document.querySelector('main').append(kept)");
    wait(&window, "it.count === 3");

    window.evaluate("kept.setAttribute('post', 'a')");
    wait(&window, "it.liked");
    window.evaluate("document.querySelector('aside').append(kept.cloneNode(true))");
    wait(
        &window,
        "document.querySelectorAll('live-likes')[1].count === 2 && document.querySelectorAll('live-likes')[1].liked",
    );
    window.evaluate("document.querySelectorAll('live-likes')[1].setAttribute('post', 'b')");
    wait(
        &window,
        "document.querySelectorAll('live-likes')[1].count === 3 && !document.querySelectorAll('live-likes')[1].matches('[liked]')",
    );

    assert_eq!(heard(&window), json!(["Like, 2 likes", "true", false]));
    window.evaluate("kept.setAttribute('readonly', '')");
    assert_eq!(heard(&window), json!(["2 likes", null, true]));
    window.click("live-likes");
    window.evaluate("kept.removeAttribute('readonly')");
    assert_eq!(heard(&window), json!(["Like, 2 likes", "true", false]));
    assert_eq!(site.count("a"), 2);

    window.evaluate(&format!("kept.setAttribute('server', {})", json!(other.gate.origin())));
    eventually("the other server is asked", || !other.gate.requests("/liveLikes").is_empty());
    window.evaluate("kept.removeAttribute('server')");
    wait(&window, "it.count === 2 && it.liked");
}

fn events_bubble_out_of_all_trees_and_methods_say_when_it_is_done(browser: &Browser) {
    let site = Site::start();
    let page = site.page(
        "/",
        "<div></div><script>
           const told = [];
           for (const name of ['count', 'like', 'error']) {
             addEventListener(`live-likes:${name}`, ({ detail }) => told.push([name, detail]));
           }
           const root = document.querySelector('div').attachShadow({ mode: 'open' });
           root.innerHTML = '<live-likes post=a></live-likes>';
           const it = root.firstChild;
         </script>",
    );
    let window = browser.window();
    window.open(&page);
    let counted =
        "new Promise((done) => { const look = () => (it.count === 0 ? done(1) : setTimeout(look, 5)); look() })";
    window.evaluate(counted);
    assert_eq!(window.evaluate("it.like().then((liked) => [liked, it.liked, it.count])"), json!([true, true, 1]));
    assert_eq!(window.evaluate("it.like().then((liked) => [liked, it.count])"), json!([true, 1]), "once alone");
    assert_eq!(window.evaluate("it.unlike().then((liked) => [liked, it.count])"), json!([false, 0]));
    let told = window.evaluate("told");
    let expected = [
        ("count", 0, false),
        ("count", 1, true),
        ("like", 1, true),
        ("like", 1, true),
        ("count", 0, false),
        ("like", 0, false),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, count, liked)| json!([name, { "post": "a", "count": count, "liked": liked }]))
        .collect();
    assert_eq!(told, json!(expected));
}

fn a_refused_like_is_taken_back_told_of_and_can_be_given_again(browser: &Browser) {
    let site = Site::start();
    let page = site.page("/", "<live-likes post=\"a\"></live-likes>");
    let window = browser.window();
    window.before_each_page(
        "globalThis.refuse = 0;
         const { send } = WebSocket.prototype;
         WebSocket.prototype.send = function (text) {
           const message = JSON.parse(text);
           if (!refuse || message.type !== 'like') return send.call(this, text);
           const refused = { type: 'refused', ref: message.ref, post: 'a', status: 429, problem: 'too many likes; wait a second' };
           setTimeout(() => this.onmessage({ data: JSON.stringify(refused) }));
         };
         addEventListener('live-likes:error', ({ detail }) => { document.title = JSON.stringify(detail) });",
    );
    window.open(&page);
    wait(&window, "it.count === 0");
    window.evaluate("refuse = 1");
    window.click("live-likes");
    wait(&window, "it.matches('[refused]:state(refused):not([liked], [pending])')");
    assert_eq!(heard(&window), json!(["Like, 0 likes", "false", false]));
    assert_eq!(window.evaluate(&format!("{INSIDE}('[role=status]').innerText")), "Your like was not confirmed");
    let told: Value = serde_json::from_str(window.evaluate("document.title").as_str().expect("a text")).expect("JSON");
    assert_eq!((&told["status"], &told["problem"]), (&json!(429), &json!("too many likes; wait a second")));
    let complaints = window.complaints();
    assert!(complaints.iter().any(|it| it.contains("live-likes: too many likes; wait a second")), "{complaints:?}");

    window.evaluate("refuse = 0");
    window.click("live-likes");
    wait(&window, "it.liked && it.count === 1 && !it.matches('[refused], :state(refused)')");
    assert_eq!(window.evaluate(&format!("{INSIDE}('[role=status]').innerText")), "Liked, 1 like");
}

fn a_post_that_may_not_exist_is_told_of_in_the_server_s_words(browser: &Browser) {
    let folder = crate::running::Folder::new();
    std::fs::write(folder.join("posts"), "/2026/*\n").expect("a list");
    let list = live_likes::AllowedPosts::open(folder.join("posts")).expect("a list");
    let site = Site::with(|server, origin| server.allow_origin(origin).allow_posts(list));
    let page = site.page("/", "<live-likes post=\"/2025/\"></live-likes><live-likes post=\"/2026/\"></live-likes>");
    let window = browser.window();
    window.before_each_page(
        "addEventListener('live-likes:error', ({ detail }) => { document.title = detail.status + detail.post })",
    );
    window.open(&page);
    wait(&window, "document.title === '404/2025/'");
    wait(&window, "document.querySelectorAll('live-likes')[1].count === 0");
    assert_eq!(shown(&window), "");
    assert!(window.complaints().iter().any(|it| it.contains("live-likes: ")), "{:?}", window.complaints());
}

fn words_and_numbers_are_those_of_the_page(browser: &Browser) {
    let site = Site::start();
    for _ in 0..3 {
        site.posts.post("a").expect("a post").like().expect("a like");
    }
    let page = site.page(
        "/",
        "<div lang=\"pl\" dir=\"rtl\"><live-likes post=\"a\" text-like=\"Lubi\u{119}\" text-one=\"# polubienie\"
           text-few=\"# polubienia\" text-other=\"# polubie\u{144}\"></live-likes></div>",
    );
    let window = browser.window();
    window.open(&page);
    wait(&window, "it.count === 3");
    assert_eq!(heard(&window)[0], "Lubi\u{119}, 3 polubienia");
    window.evaluate(&format!("{FIRST}.setAttribute('text-few', 'razy #')"));
    assert_eq!(heard(&window)[0], "Lubi\u{119}, razy 3");
    let at = |part: &str| {
        window.evaluate(&format!("{INSIDE}('[part={part}]').getBoundingClientRect().x")).as_f64().expect("a place")
    };
    assert!(at("icon") > at("count"), "from right to left");
    // Not a language, but what an author wrote.
    window.evaluate("document.querySelector('div').lang = 'en_US'");
    window.evaluate(&format!("{FIRST}.setAttribute('text-one', '')"));
    assert!(heard(&window)[0].as_str().is_some_and(|name| name.contains('3')));
}

fn it_looks_as_the_page_does_and_as_the_reader_prefers(browser: &Browser) {
    let site = Site::start();
    let page = site.page(
        "/",
        "<style>
           body { color: rgb(1, 2, 3); font: italic 20px monospace }
           live-likes:state(liked)::part(count) { color: rgb(4, 5, 6) }
           .own { --live-likes-liked-color: rgb(7, 8, 9); --live-likes-size: 40px }
         </style>
         <live-likes post=\"a\"></live-likes>
         <live-likes class=\"own\" post=\"a\"><b slot=\"icon\">+</b></live-likes>",
    );
    let window = browser.window();
    window.open(&page);
    wait(&window, "it.count === 0");
    let style = |inside: &str, name: &str| {
        let of = format!("getComputedStyle({INSIDE}('{inside}'))['{name}']");
        window.evaluate(&of).as_str().expect("a style").to_owned()
    };
    assert_eq!(style("button", "color"), "rgb(1, 2, 3)");
    assert_eq!((style("button", "fontStyle"), style("button", "fontSize")), ("italic".into(), "20px".into()));
    assert_eq!(style("svg", "fill"), "none");
    window.click("live-likes");
    wait(&window, "it.liked");
    assert_eq!((style("svg", "fill"), style("[part=count]", "color")), ("rgb(1, 2, 3)".into(), "rgb(4, 5, 6)".into()));
    let own = "document.querySelector('.own')";
    assert_eq!(window.evaluate(&format!("{own}.querySelector('b').assignedSlot.name")), "icon");
    let icon = format!("getComputedStyle({own}.shadowRoot.querySelector('[part=icon]')).color");
    assert_eq!(window.evaluate(&icon), "rgb(7, 8, 9)");

    window.evaluate(&format!("{FIRST}.setAttribute('pending', '')"));
    assert_eq!(style("[part=icon]", "animationName"), "wait");
    window.prefer(&[("prefers-reduced-motion", "reduce")]);
    assert_eq!(style("[part=icon]", "animationName"), "none");
    window.prefer(&[("forced-colors", "active")]);
    assert_ne!(style("button", "borderTopColor"), "rgba(0, 0, 0, 0)", "forced colours show the border");
    window.prefer(&[]);
    window.evaluate(&format!("{FIRST}.setAttribute('refused', '')"));
    window.call("Emulation.setEmulatedMedia", json!({ "media": "print" }));
    assert_eq!((style("[part=note]", "display"), style("svg", "display")), ("none".into(), "block".into()));
    assert_eq!(shown(&window), "1", "on paper too");
}

fn a_second_definition_does_no_harm_and_a_form_is_upgraded_in_place(browser: &Browser) {
    let site = Site::start();
    let second = site.script().replace("live-likes.js", "live-likes.js?again");
    let page = site.page(
        "/",
        &format!(
            "{second}<live-likes post=\"a\"><form method=\"post\" action=\"{}/like?post=a\"><button>Like</button></form></live-likes>",
            site.gate.origin()
        ),
    );
    let window = browser.window();
    window.open(&page);
    wait(&window, "it.count === 0");
    window.press("Tab", 9);
    assert_eq!(window.evaluate("document.activeElement.localName"), "live-likes");
    window.press(" ", 32);
    wait(&window, "it.liked && it.count === 1");
    assert_eq!(window.evaluate("document.activeElement.localName"), "live-likes", "it keeps the focus");
    window.press("Tab", 9);
    assert_eq!(window.evaluate("document.activeElement.localName"), "body", "the form is not there any more");
    assert_eq!(site.gate.open(Kind::WebSocket), 1);
}
