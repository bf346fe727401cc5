//! The HTTP server: read-only, on loopback unless told otherwise.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError::Lagged;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::component::Secret;
use crate::sink::board::Board;
use crate::telemetry::{Telemetry, text};

/// Connections at the same time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// A connection on which nothing moves for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a stop waits for answers that are under way.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Refuses to listen beyond this host without a token.
pub fn check_listen(addr: SocketAddr, token: Option<&Secret>) -> Result<(), String> {
    if addr.ip().is_loopback() || token.is_some_and(|token| !token.reveal().is_empty()) {
        return Ok(());
    }
    Err(format!("cannot listen on {addr} without a token: anybody on the network could read the metrics"))
}

#[derive(Clone)]
struct Shared {
    telemetry: Arc<Telemetry>,
    token: Option<Secret>,
    /// Bound to loopback: only names of loopback are answered, so that no web page can be made to read us.
    loopback: bool,
    stop: CancellationToken,
}

/// Answers until `stop` is cancelled.
pub async fn serve(
    listener: TcpListener,
    telemetry: Arc<Telemetry>,
    token: Option<Secret>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let addr = listener.local_addr()?;
    check_listen(addr, token.as_ref()).map_err(std::io::Error::other)?;
    let shared = Shared { telemetry, token, loopback: addr.ip().is_loopback(), stop: stop.clone() };
    let router = Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/v1/pipelines", get(pipelines))
        .route("/api/v1/latest/{sink}", get(latest))
        .route("/api/v1/stream/{sink}", get(stream))
        .layer(from_fn_with_state(shared.clone(), guard))
        .with_state(shared);
    let listener = Limited { listener, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        done = server.into_future() => done,
        () = async { stop.cancelled().await; tokio::time::sleep(STOP_WAIT).await } => Ok(()),
    }
}

/// Who may ask, and what every answer says.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if shared.loopback && !host_is_local(request.headers()) {
        return (StatusCode::MISDIRECTED_REQUEST, "this host answers to localhost only\n").into_response();
    }
    if let Some(token) = &shared.token
        && request.uri().path() != "/healthz"
        && !has_token(request.headers(), token)
    {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge, "a bearer token is required\n").into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

fn host_is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn has_token(headers: &HeaderMap, token: &Secret) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("").trim().as_bytes();
    let wanted = token.reveal().as_bytes();
    // Every byte is looked at, so that the time taken tells nothing of the token.
    let differ = given.iter().zip(wanted).fold(0, |differ, (a, b)| differ | (a ^ b));
    given.len() == wanted.len() && differ == 0
}

async fn metrics(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, text::CONTENT_TYPE)], text::render(&shared.telemetry)).into_response()
}

async fn ready(State(shared): State<Shared>) -> Response {
    let reasons = shared.telemetry.reasons();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn pipelines(State(shared): State<Shared>) -> Response {
    let pipelines = shared.telemetry.pipelines.iter().map(|pipeline| {
        let stages = pipeline.stages.iter().map(|stage| {
            json!({
                "name": stage.name,
                "kind": stage.kind.as_str(),
                "type": stage.component,
                "rows_in": stage.meter.rows_in.load(Relaxed),
                "rows_out": stage.meter.rows_out[0].load(Relaxed),
                "rows_aside": stage.meter.rows_out[1].load(Relaxed),
            })
        });
        json!({ "name": pipeline.name, "stages": stages.collect::<Vec<_>>() })
    });
    axum::Json(pipelines.collect::<Vec<_>>()).into_response()
}

/// The board that a path names; `?pipeline=NAME` tells sinks of the same name apart.
fn find(shared: &Shared, sink: &str, uri: &Uri) -> Option<Arc<Board>> {
    let pipeline = uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("pipeline=")));
    shared.telemetry.boards.get(pipeline, sink)
}

fn no_board() -> Response {
    (StatusCode::NOT_FOUND, axum::Json(json!({ "error": "no metrics sink of this name" }))).into_response()
}

async fn latest(State(shared): State<Shared>, Path(sink): Path<String>, uri: Uri) -> Response {
    match find(&shared, &sink, &uri) {
        Some(board) => ([(header::CONTENT_TYPE, "application/json")], board.latest()).into_response(),
        None => no_board(),
    }
}

async fn stream(State(shared): State<Shared>, Path(sink): Path<String>, uri: Uri) -> Response {
    let Some(board) = find(&shared, &sink, &uri) else { return no_board() };
    let events = BroadcastStream::new(board.subscribe()).map(|event| {
        Ok::<_, std::convert::Infallible>(match event {
            Ok(rows) => Event::default().event("rows").data(rows.as_ref()),
            Err(Lagged(missed)) => Event::default().event("missed").data(missed.to_string()),
        })
    });
    let stop = Box::pin(shared.stop.cancelled_owned());
    Sse::new(UntilStop { events, stop }).keep_alive(KeepAlive::default()).into_response()
}

/// A stream that a stop ends.
struct UntilStop<S> {
    events: S,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S: Stream + Unpin> Stream for UntilStop<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if self.stop.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.events).poll_next(context)
    }
}

/// A page for people: what runs, and where to look. No script.
async fn page(State(shared): State<Shared>) -> Response {
    let mut body = String::from("<!doctype html><meta charset=utf-8><title>streamgauge</title><h1>streamgauge</h1>");
    for pipeline in &shared.telemetry.pipelines {
        body += &format!("<h2>{}</h2><table><tr><th>stage<th>type<th>rows in<th>rows out</tr>", escape(&pipeline.name));
        for stage in &pipeline.stages {
            let (rows_in, rows_out) = (stage.meter.rows_in.load(Relaxed), stage.meter.rows_out[0].load(Relaxed));
            let (name, kind) = (escape(&stage.name), escape(&stage.component));
            body += &format!("<tr><td>{name}<td>{kind}<td>{rows_in}<td>{rows_out}</tr>");
        }
        body += "</table>";
    }
    for board in shared.telemetry.boards.all() {
        body += &format!("<h2>{}</h2><pre>{}</pre>", escape(&board.sink), escape(&board.latest()));
    }
    body += "<p><a href=/metrics>metrics</a> <a href=/readyz>ready</a> <a href=/api/v1/pipelines>pipelines</a>";
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response()
}

/// Text of devices is never markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// A listener with room for so many connections.
struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl axum::serve::Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = self.permits.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let (stream, addr) = axum::serve::Listener::accept(&mut self.listener).await;
        (Connection { stream, idle: Box::pin(tokio::time::sleep(IDLE_MAX)), _permit: permit }, addr)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing moves on it.
struct Connection {
    stream: TcpStream,
    idle: Pin<Box<tokio::time::Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// What moved, or that nothing did for too long.
    fn watch<T>(&mut self, moved: Poll<std::io::Result<T>>, context: &mut Context<'_>) -> Poll<std::io::Result<T>> {
        if moved.is_ready() {
            self.idle.as_mut().reset(tokio::time::Instant::now() + IDLE_MAX);
            return moved;
        }
        self.idle.as_mut().poll(context).map(|()| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watch(moved, cx)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(moved, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
