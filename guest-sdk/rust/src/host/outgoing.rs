//! One request over `wasi:http`, from its first byte to the last of its response.

use crate::bindings::wasi::http::outgoing_handler;
use crate::bindings::wasi::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions,
    Scheme,
};
use crate::bindings::wasi::io::streams::StreamError;
use crate::http::{Error, Request, Response, parts};

/// Bytes read from a response's body at once.
const READ_BYTES: u64 = 64 * 1024;

pub(super) fn send(request: Request) -> Result<Response, Error> {
    let (https, authority, path) = parts(&request.url)?;
    let wrong = |what: &str| Error::denied(format!("{what} of the request to {authority} is not valid"));
    let mut headers: Vec<(String, Vec<u8>)> = Vec::with_capacity(request.headers.len() + 1);
    for (name, value) in request.headers {
        headers.push((name, value.into_bytes()));
    }
    if !request.body.is_empty() {
        headers.push((
            "Content-Length".into(),
            request.body.len().to_string().into_bytes(),
        ));
    }
    let headers = Fields::from_list(&headers).map_err(|_| wrong("a header"))?;
    let out = OutgoingRequest::new(headers);
    out.set_method(&method(&request.method))
        .map_err(|()| wrong("the method"))?;
    let scheme = if https { Scheme::Https } else { Scheme::Http };
    out.set_scheme(Some(&scheme)).map_err(|()| wrong("the scheme"))?;
    out.set_authority(Some(authority))
        .map_err(|()| wrong("the host"))?;
    out.set_path_with_query(Some(path))
        .map_err(|()| wrong("the path"))?;
    let body = match request.body.is_empty() {
        true => None,
        false => Some(out.body().map_err(|()| wrong("the body"))?),
    };
    let options = RequestOptions::new();
    if let Some(timeout) = request.timeout {
        let ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        // A host may not know all of them; the invocation's time bounds the request then.
        let _ = options.set_connect_timeout(Some(ns));
        let _ = options.set_first_byte_timeout(Some(ns));
        let _ = options.set_between_bytes_timeout(Some(ns));
    }
    let failed = |code: ErrorCode| failed(authority, &code);
    let coming = outgoing_handler::handle(out, Some(options)).map_err(failed)?;
    if let Some(body) = body {
        write(body, &request.body);
    }
    coming.subscribe().block();
    let response = coming.get().and_then(Result::ok);
    let response = response.expect("it is ready, and nobody has taken it");
    read(response.map_err(failed)?)
        .map_err(|why| Error::new(format!("the response of {authority} broke off: {why}")))
}

/// Sends a body. A server may answer without reading it to its end: then the response counts.
fn write(body: OutgoingBody, bytes: &[u8]) {
    let stream = body.write().expect("nobody has taken it");
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.subscribe().block();
        let Ok(room) = stream.check_write() else { return };
        let (now, later) = rest.split_at(rest.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        if stream.write(now).is_err() {
            return;
        }
        rest = later;
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// Reads a response, or what its body broke with.
fn read(response: IncomingResponse) -> Result<Response, String> {
    let status = response.status();
    let headers = response.headers().entries();
    let body: IncomingBody = response.consume().expect("nobody has taken it");
    let stream = body.stream().expect("nobody has taken it");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(some) => bytes.extend(some),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
    Ok(Response {
        status,
        headers: headers
            .into_iter()
            .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
            .collect(),
        body: bytes,
    })
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.into()),
    }
}

fn failed(authority: &str, code: &ErrorCode) -> Error {
    match code {
        ErrorCode::HttpRequestDenied => Error::denied(format!(
            "{authority} is not among [http] hosts of handler.toml, or not by that scheme and port"
        )),
        ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestMethodInvalid => {
            Error::denied(format!("the request to {authority} is not valid: {code:?}"))
        }
        _ => Error::new(format!("no response of {authority}: {code:?}")),
    }
}
