//! Activities: `http.wat` against a server in this process.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::*;
use crate::deployment::manifest::HttpAccess;

const HTTP: &str = include_str!("../../../../tests/fixtures/http.wat");

/// Cases of `wasi:http/types.error-code`, by their place in it.
const CONNECTION_REFUSED: u8 = 6;
const CONNECTION_TERMINATED: u8 = 7;
const REQUEST_DENIED: u8 = 15;
const PROTOCOL_ERROR: u8 = 35;
const RESPONSE_BODY_SIZE: u8 = 28;
/// wasmtime-wasi-http 48 has codes for responses only, and for what breaks their bodies a text.
const NO_CODE: u8 = 255;
const INTERNAL_ERROR: u8 = 38;

impl Script {
    fn ask(self, authority: impl ToString, path: &str) -> Self {
        self.op(b'G').text(&authority.to_string()).text(path)
    }
}

/// A server that answers by the path, and remembers the `Idempotency-Key` of each request.
struct Server {
    runtime: Runtime,
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    keys: Mutex<Vec<String>>,
    /// Requests to `/hang` that are waiting.
    hanging: watch::Sender<usize>,
}

impl Seen {
    fn keys(&self) -> Vec<String> {
        std::mem::take(&mut self.keys.lock().expect("no panic"))
    }
}

async fn answer(State(seen): State<Arc<Seen>>, request: Request) -> Response {
    let keys = request.headers().get_all("idempotency-key").iter();
    let keys = keys.map(|key| key.to_str().expect("text").to_owned());
    seen.keys.lock().expect("no panic").extend(keys);
    match request.uri().path() {
        "/hang" => {
            /// The client gave up: the server drops this with the request.
            struct Waiting(Arc<Seen>);
            impl Drop for Waiting {
                fn drop(&mut self) {
                    self.0.hanging.send_modify(|waiting| *waiting -= 1);
                }
            }
            seen.hanging.send_modify(|waiting| *waiting += 1);
            let _waiting = Waiting(seen);
            std::future::pending().await
        }
        "/once-one-hangs" => {
            let mut hanging = seen.hanging.subscribe();
            hanging
                .wait_for(|waiting| *waiting > 0)
                .await
                .expect("it is here");
            "hello".into_response()
        }
        "/redirect" => (axum::http::StatusCode::FOUND, [(LOCATION, "/ok")]).into_response(),
        // Without a length that says so beforehand.
        "/large" => {
            let pieces =
                futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 10_000])));
            Body::from_stream(pieces).into_response()
        }
        "/long" => vec![0_u8; 200_000].into_response(),
        _ => "hello".into_response(),
    }
}

impl Server {
    fn start() -> Server {
        let runtime = Runtime::new().expect("a runtime");
        let seen = Arc::<Seen>::default();
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = axum::Router::new().fallback(answer).with_state(seen.clone());
        runtime.spawn(async { axum::serve(listener, router).await });
        Server {
            runtime,
            address,
            seen,
        }
    }

    /// An activity that may call this server.
    fn activity(&self, time_ms: u32) -> Instance {
        self.activity_for(self.address, time_ms)
    }

    fn activity_for(&self, address: SocketAddr, time_ms: u32) -> Instance {
        let settings = ProgramSettings {
            limits: Limits { time_ms, ..limits() },
            http: Some(HttpAccess {
                hosts: vec![address.to_string().parse().expect("a host")],
                response_bytes: 100_000,
            }),
            ..settings()
        };
        self.within(|| {
            let program = Program::compile(&engine(), &module(HTTP), settings).expect("accepted");
            assert!(program.is_activity());
            program.instantiate().expect("it starts")
        })
    }

    /// On a thread that has entered the runtime, as those for activities have.
    fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.runtime.enter();
        work()
    }

    /// Waits until the last request to `/hang` is gone.
    fn nothing_hangs(&self) {
        let mut hanging = self.seen.hanging.subscribe();
        self.runtime.block_on(async {
            let gone = hanging.wait_for(|waiting| *waiting == 0);
            let gone = tokio::time::timeout(Duration::from_secs(60), gone).await;
            gone.expect("in time").expect("the server is there");
        });
    }

    fn run(&self, activity: &mut Instance, script: Script) -> Result<Effects, Fault> {
        self.within(|| run(activity, script))
    }
}

/// Subject and payload, read as a number, of all that was emitted.
fn numbers(effects: &Effects) -> Vec<(&str, u64)> {
    let number = |data: &[u8]| {
        data.iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let emits = effects.emits.iter();
    emits
        .map(|emit| (emit.subject.as_str(), number(&emit.data)))
        .collect()
}

const ENOUGH_MS: u32 = 60_000;

#[test]
fn requests_are_answered_and_redirects_are_not_followed() {
    let server = Server::start();
    let mut activity = server.activity(ENOUGH_MS);
    let script = script()
        .ask(server.address, "/ok?x=1")
        .ask(server.address, "/redirect");
    let effects = server.run(&mut activity, script).expect("effects");
    assert_eq!(
        numbers(&effects),
        [
            ("out.status", 200),
            ("out.body", 5),
            ("out.status", 302),
            ("out.body", 0)
        ]
    );
    assert_eq!(server.seen.keys().len(), 2);
}

#[test]
fn keys_are_the_same_whenever_the_event_is_executed() {
    let server = Server::start();
    let script = || {
        let own = script().ask(server.address, "/a").ask(server.address, "/a");
        own.ask(server.address, "/b")
            .op(b'K')
            .text("mine")
            .ask(server.address, "/c")
    };
    let mut activity = server.activity(ENOUGH_MS);
    server.run(&mut activity, script()).expect("effects");
    let first = server.seen.keys();
    assert_eq!(first.len(), 4, "{first:?}");
    assert!(first[0] != first[1] && first[1] != first[2], "{first:?}");
    assert_eq!(first[3], "mine");
    // The same instance again, and one of another engine, as on another host.
    server.run(&mut activity, script()).expect("effects");
    assert_eq!(server.seen.keys(), first);
    server
        .run(&mut server.activity(ENOUGH_MS), script())
        .expect("effects");
    assert_eq!(server.seen.keys(), first);
    let other = Event {
        sequence: 5013,
        ..event(script())
    };
    server
        .within(|| activity.handle(&other, &CALL, &state(&[], &[])))
        .expect("effects");
    let keys = server.seen.keys();
    assert!(keys[..3].iter().all(|key| !first.contains(key)), "{keys:?}");
}

#[test]
fn what_the_manifest_does_not_name_is_denied_and_nothing_is_sent() {
    let server = Server::start();
    let elsewhere = Server::start();
    let mut activity = server.activity(ENOUGH_MS);
    let script = script().ask(elsewhere.address, "/").ask("example.com", "/");
    let user = format!("user@{}", server.address);
    let effects = server
        .run(&mut activity, script.ask(user, "/").ask(server.address, "/"))
        .expect("effects");
    let denied = numbers(&effects)[..2].to_vec();
    assert_eq!(denied, vec![("out.error", REQUEST_DENIED.into()); 2]);
    assert_eq!(numbers(&effects)[2].0, "out.error");
    assert_eq!(
        numbers(&effects)[3],
        ("out.status", 200),
        "those that are named go on"
    );
    assert!(elsewhere.seen.keys().is_empty());
    assert_eq!(server.seen.keys().len(), 1);
}

#[test]
fn a_server_that_breaks_off_or_is_gone_is_an_error_of_the_guest() {
    let server = Server::start();
    for (head, expected) in [
        ("", vec![("out.error", CONNECTION_TERMINATED.into())]),
        ("HTTP/1.1 2", vec![("out.error", CONNECTION_TERMINATED.into())]),
        ("no HTTP\r\n\r\n", vec![("out.error", PROTOCOL_ERROR.into())]),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            vec![("out.status", 200), ("out.error", NO_CODE.into())],
        ),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server_of_one = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                request.extend(byte);
            }
            stream.write_all(head.as_bytes()).expect("it is still there");
        });
        let mut activity = server.activity_for(address, ENOUGH_MS);
        let effects = server
            .run(&mut activity, script().ask(address, "/"))
            .expect("effects");
        assert_eq!(numbers(&effects), expected, "{head:?}");
        server_of_one.join().expect("no panic");
    }
    let gone = Server::start();
    let mut activity = gone.activity(ENOUGH_MS);
    let Server { runtime, address, .. } = gone;
    drop(runtime);
    let effects = server
        .run(&mut activity, script().ask(address, "/"))
        .expect("effects");
    assert_eq!(numbers(&effects), [("out.error", CONNECTION_REFUSED.into())]);
}

#[test]
fn a_body_ends_at_its_limit() {
    let server = Server::start();
    let mut activity = server.activity(ENOUGH_MS);
    // Found while it is read, and by what the server says of it.
    let script = script()
        .ask(server.address, "/large")
        .ask(server.address, "/long");
    let effects = server.run(&mut activity, script).expect("effects");
    assert_eq!(
        numbers(&effects),
        [
            ("out.status", 200),
            ("out.error", NO_CODE.into()),
            ("out.error", RESPONSE_BODY_SIZE.into())
        ]
    );
}

#[test]
fn an_event_sends_so_many_requests_and_no_more() {
    let server = Server::start();
    let mut activity = server.activity(ENOUGH_MS);
    let all = (0..=REQUESTS_MAX).fold(script(), |script, _| script.ask(server.address, "/"));
    let effects = server.run(&mut activity, all).expect("effects");
    assert_eq!(server.seen.keys().len(), REQUESTS_MAX);
    assert_eq!(
        numbers(&effects).last(),
        Some(&("out.error", INTERNAL_ERROR.into()))
    );
    // The next event has its own.
    let effects = server
        .run(&mut activity, script().ask(server.address, "/"))
        .expect("effects");
    assert_eq!(numbers(&effects)[0], ("out.status", 200));
}

/// Whatever an activity waits for, its time bounds it: a response, a clock, and a stream that nobody reads.
#[test]
fn waiting_ends_with_the_time_of_the_invocation() {
    const SHORT_MS: u32 = 300;
    let server = Server::start();
    for script in [
        script().ask(server.address, "/hang"),
        script().op(b'S').u64(u64::MAX),
        script().op(b'B'),
    ] {
        let mut activity = server.activity(SHORT_MS);
        let fault = server.run(&mut activity, script).expect_err("too long");
        assert_eq!(fault, Fault::Timeout { limit_ms: SHORT_MS });
        assert!(activity.poisoned() && !fault.permanent());
        let again = server.run(&mut activity, super::script().ask(server.address, "/"));
        assert_eq!(numbers(&again.expect("a new instance"))[0], ("out.status", 200));
    }
    // Their connections are closed with them.
    server.nothing_hangs();
}

/// What a guest drops or forgets does not outlive its invocation.
#[test]
fn requests_end_with_their_invocation() {
    let server = Server::start();
    let mut activity = server.activity(ENOUGH_MS);
    let forgotten = script().op(b'D').text(&server.address.to_string()).text("/hang");
    let arrived = forgotten.ask(server.address, "/once-one-hangs");
    server.run(&mut activity, arrived).expect("effects");
    server.nothing_hangs();
    let again = server.run(&mut activity, script().ask(server.address, "/ok"));
    assert_eq!(
        numbers(&again.expect("the same instance"))[0],
        ("out.status", 200)
    );
}

#[test]
fn a_sleep_takes_its_time_and_moves_the_clock_no_further() {
    let server = Server::start();
    let mut activity = server.activity(ENOUGH_MS);
    let began = Instant::now();
    let slept = Duration::from_millis(50);
    let script = script().op(b'S').u64(slept.as_nanos() as u64);
    server.run(&mut activity, script).expect("effects");
    assert!(began.elapsed() >= slept);
}

#[test]
fn hosts_and_imports_go_together() {
    let refused = |wasm: &str, http| {
        let settings = ProgramSettings { http, ..settings() };
        Program::compile(&engine(), &module(wasm), settings)
            .err()
            .map(|refusal| refusal.to_string())
    };
    let access = || {
        Some(HttpAccess {
            hosts: vec!["example.com".parse().expect("a host")],
            response_bytes: 1,
        })
    };
    let sentence = refused(HTTP, None).expect("no hosts");
    assert!(sentence.contains("add `[http]` with `hosts = ["), "{sentence}");
    let sentence = refused(PROBE, access()).expect("no wasi:http");
    assert!(sentence.contains("take `[http]` out"), "{sentence}");
    assert_eq!(refused(HTTP, access()), None);
    let inspection = inspect(&engine(), &module(HTTP));
    assert!(
        inspection.activity && inspection.accepted.is_ok(),
        "{inspection:?}"
    );
    assert!(!inspect(&engine(), &module(PROBE)).activity);
}

/// `weir test`: no network, no waiting.
#[test]
fn answers_that_were_written_down() {
    let mut answers = Answers::default();
    for status in [503_u16, 204] {
        let answer = Answer {
            status: status.try_into().expect("a status"),
            headers: Vec::new(),
            body: Bytes::from_static(b"four"),
        };
        answers.push(axum::http::Method::GET, "http://127.0.0.1:1/x".into(), answer);
    }
    let answers = Arc::new(answers);
    let engine = Engine::offline(2, None, answers.clone()).expect("an engine");
    let settings = ProgramSettings {
        http: Some(HttpAccess {
            hosts: vec!["127.0.0.1:1".parse().expect("a host")],
            response_bytes: 100,
        }),
        ..settings()
    };
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let program = Program::compile(&engine, &module(HTTP), settings).expect("accepted");
    let mut activity = program.instantiate().expect("it starts");
    let here = "127.0.0.1:1";
    let script = script()
        .op(b'S')
        .u64(u64::MAX)
        .ask(here, "/x")
        .ask(here, "/x")
        .ask(here, "/x");
    let effects = run(&mut activity, script.ask(here, "/y").ask("example.com", "/x")).expect("effects");
    let statuses: Vec<_> = numbers(&effects)
        .into_iter()
        .filter(|(subject, _)| *subject != "out.body")
        .collect();
    assert_eq!(
        statuses,
        [
            ("out.status", 503),
            ("out.status", 204),
            ("out.status", 204),
            ("out.error", CONNECTION_REFUSED.into()),
            ("out.error", REQUEST_DENIED.into()),
        ]
    );
    let asked = answers.take_asked();
    assert_eq!(asked.len(), 4, "what is denied is not asked");
    assert_eq!(asked[3].status, None);
}
