//! The HTTP side: metrics, health, streams, the model, and all predictions as server-sent events.
//! The door of hyper.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout_at};

use super::accept::Ear;
use super::hub::Hub;
use super::impatient::Impatient;
use super::sockets::{hear_loss, hear_readers};
use super::subscriber::Subscription;

/// Connections at once.
pub const MAX_HTTP_CONNECTIONS: usize = 64;
/// Connections beyond them that are told so; any more are closed.
pub const MAX_HTTP_TURNED_AWAY: usize = 16;
/// Longest head of a request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 16 << 10;
/// Longest name of a stream that is subscribed to, in bytes: it may hold the path of a socket.
const MAX_WANTED_BYTES: usize = 512;

/// Time to write the states that a request asks for.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers requests until it is aborted.
pub async fn accept(hub: Rc<Hub>, listener: TcpListener, mut ear: Ear) {
    let (served, turned_away) = <(Rc<Cell<usize>>, Rc<Cell<usize>>)>::default();
    loop {
        let Some((stream, _)) = ear.heard(listener.accept().await).await else { continue };
        let place = Counted::below(MAX_HTTP_CONNECTIONS, &served);
        let is_served = place.is_some();
        if !is_served {
            hub.meters.refused();
        }
        let place = place.or_else(|| Counted::below(MAX_HTTP_TURNED_AWAY, &turned_away));
        let Some(counted) = place else { continue };
        let answered = Rc::new(Cell::new(false));
        hear_readers(&stream);
        hear_loss(&stream);
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(hub.limits.header_timeout)
            .max_buf_size(MAX_REQUEST_BYTES)
            .keep_alive(is_served)
            .serve_connection(
                TokioIo::new(Impatient::new(stream, hub.limits.header_timeout)),
                service_fn({
                    let (hub, answered) = (hub.clone(), answered.clone());
                    move |request: Request<Incoming>| {
                        let hub = hub.clone();
                        answered.set(true);
                        let is_welcome = is_served || request.uri().path() == "/livez";
                        async move {
                            Ok::<_, Infallible>(match is_welcome {
                                true => answer(&hub, &request).await,
                                false => turn_away(),
                            })
                        }
                    }
                }),
            );
        let hub = hub.clone();
        spawn_local(async move {
            // What fails here is the client's connection, and it knows.
            let ended = connection.await;
            // One that was answered may rest.
            let is_refused =
                |error: &hyper::Error| error.is_parse() || (error.is_timeout() && !answered.get());
            if is_served && ended.is_err_and(|error| is_refused(&error)) {
                hub.meters.refused();
            }
            drop(counted);
        });
    }
}

/// Counts a connection while it lives.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    /// One more, where there are fewer than `most`.
    fn below(most: usize, open: &Rc<Cell<usize>>) -> Option<Self> {
        (open.get() < most).then(|| {
            open.set(open.get() + 1);
            Counted(open.clone())
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What is sent back.
enum Answer {
    Whole(Option<Bytes>),
    Events(Subscription),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Answer::Whole(bytes) => Poll::Ready(bytes.take()),
            Answer::Events(subscription) => subscription.poll(cx).map(|lines| lines.map(events)),
        };
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Answer::Events(_) => SizeHint::default(),
        }
    }
}

/// Lines as server-sent events.
fn events(lines: Vec<u8>) -> Bytes {
    let mut events = Vec::with_capacity(lines.len() * 9 / 8);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        events.extend_from_slice(b"data: ");
        events.extend_from_slice(line);
        events.push(b'\n');
    }
    events.into()
}

/// The answer where there are too many connections.
fn turn_away() -> Response<Answer> {
    let why = "too many connections are open\n";
    with(whole(StatusCode::SERVICE_UNAVAILABLE, PLAIN, why), RETRY_AFTER, "1")
}

/// The token of `Bearer TOKEN`; schemes are told without case.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim_start())
}

async fn answer(hub: &Rc<Hub>, request: &Request<Incoming>) -> Response<Answer> {
    let path = request.uri().path();
    let allowed = if path == "/v1/snapshot" { Method::POST } else { Method::GET };
    if *request.method() != allowed {
        let (what, allowed) =
            if allowed == Method::GET { ("only GET\n", "GET") } else { ("only POST\n", "POST") };
        return with(whole(StatusCode::METHOD_NOT_ALLOWED, PLAIN, what), ALLOW, allowed);
    }
    match path {
        "/livez" => return whole(StatusCode::OK, PLAIN, "alive\n"),
        "/readyz" => {
            return match hub.unready() {
                None => whole(StatusCode::OK, PLAIN, "ready\n"),
                Some(why) => whole(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
            };
        }
        _ => (),
    }
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Err(error) = hub.admit(authorization.and_then(bearer)) {
        hub.meters.refused();
        let refusal = whole(StatusCode::UNAUTHORIZED, PLAIN, format!("{error}\n"));
        return with(refusal, WWW_AUTHENTICATE, "Bearer");
    }
    match path {
        "/metrics" => whole(StatusCode::OK, METRICS, hub.registry.text()),
        "/v1/snapshot" => snapshot(hub).await,
        "/v1/streams" => whole(StatusCode::OK, JSON, hub.streams_json()),
        "/v1/model" => whole(StatusCode::OK, JSON, hub.about.json()),
        "/v1/predictions" => match wanted(request.uri().query()) {
            Ok(stream) => match hub.subscribe(stream) {
                Some(subscription) => {
                    let response = Response::new(Answer::Events(subscription));
                    let response = with(response, CONTENT_TYPE, "text/event-stream");
                    with(response, CACHE_CONTROL, "no-store")
                }
                None => whole(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "too many subscribers\n"),
            },
            Err(why) => whole(StatusCode::BAD_REQUEST, PLAIN, why),
        },
        _ => whole(
            StatusCode::NOT_FOUND,
            PLAIN,
            "there are /metrics, /livez, /readyz, /v1/streams, /v1/model, /v1/predictions and, to \
             POST, /v1/snapshot\n",
        ),
    }
}

/// Has the states of all named streams written, and says of how many they were.
async fn snapshot(hub: &Hub) -> Response<Answer> {
    if hub.keeper.is_none() {
        let why = "no state is kept: start the server with --state-dir DIR\n";
        return whole(StatusCode::CONFLICT, PLAIN, why);
    }
    let (reply, mut replies) = unbounded_channel();
    let streams = hub.ask(Some(&reply));
    drop(reply);
    let deadline = Instant::now() + SNAPSHOT_TIMEOUT;
    let mut written = 0;
    while let Ok(Some(one)) = timeout_at(deadline, replies.recv()).await {
        written += usize::from(one);
    }
    let all = written == streams;
    let status = if all { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    let told = serde_json::json!({ "streams": streams, "written": written });
    whole(status, JSON, told.to_string() + "\n")
}

/// The stream that a query names; `None` for all of them.
fn wanted(query: Option<&str>) -> Result<Option<String>, String> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let stream = query.strip_prefix("stream=").filter(|stream| !stream.contains('&'));
    let stream = stream.ok_or("the only parameter is ?stream=NAME, `&` as %26\n")?;
    let named = decoded(stream).filter(|name| (1..=MAX_WANTED_BYTES).contains(&name.len()));
    let named = named.ok_or_else(|| {
        format!("?stream= takes a name of 1 to {MAX_WANTED_BYTES} bytes, `%` as %25\n")
    });
    named.map(Some)
}

/// Text in which `%` and two digits are a byte; `None` where they are none, or not UTF-8 together.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(if byte == b'%' { (digit()? * 16 + digit()?) as u8 } else { byte });
    }
    String::from_utf8(bytes).ok()
}

fn whole(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(text.into())));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, kind)
}

fn with(
    mut response: Response<Answer>,
    name: hyper::header::HeaderName,
    value: &'static str,
) -> Response<Answer> {
    response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
    response
}
