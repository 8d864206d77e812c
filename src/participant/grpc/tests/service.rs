//! A gRPC service as others write them: its own proto, no import of ours. It is made from the text of
//! its proto at run time, and answers by a script in JSON.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// One call as the service saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `Deduct`.
    pub method: String,
    /// Its metadata, where it is text.
    pub metadata: BTreeMap<String, String>,
    /// The request, by the JSON mapping.
    pub request: Value,
}

/// What it says to a call.
pub enum Says {
    /// The response, by the JSON mapping.
    Json(Value),
    /// The response, encoded.
    Bytes(Vec<u8>),
    /// A status.
    Status(Status),
    /// Nothing, until the caller gives up.
    Nothing,
}

/// Which reflection it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reflects {
    /// `grpc.reflection.v1`.
    V1,
    /// Only the older one.
    V1Alpha,
    /// None.
    No,
}

type Script = dyn Fn(&Seen) -> Says + Send + Sync;

/// A service that runs until it is stopped or dropped.
pub struct Sample {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    questions: Arc<AtomicUsize>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

/// The encoded descriptor set of proto files, each with its name; the first one is what is compiled.
pub fn compile(files: &[(&str, &str)]) -> Vec<u8> {
    let mut compiler = protox::Compiler::with_file_resolver(Texts::of(files));
    compiler.include_imports(true).open_file(files[0].0).expect("a proto that compiles");
    compiler.encode_file_descriptor_set()
}

/// Proto files by their text, and those that come with every compiler.
struct Texts(Vec<(String, String)>);

impl Texts {
    fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }
}

impl protox::file::FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, text)) => protox::file::File::from_source(name, text),
            None => protox::file::GoogleFileResolver::new().open_file(name),
        }
    }

    fn resolve_path(&self, path: &std::path::Path) -> Option<String> {
        path.to_str().map(str::to_owned)
    }
}

impl Sample {
    /// Serves all services of a descriptor set on a free port.
    pub async fn start(
        descriptor_set: &[u8],
        reflects: Reflects,
        script: impl Fn(&Seen) -> Says + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), descriptor_set, reflects, script).await
    }

    /// The same on a port of choice.
    #[allow(clippy::disallowed_methods, reason = "a server of a test's own, beside any daemon")]
    pub async fn start_at(
        address: SocketAddr,
        descriptor_set: &[u8],
        reflects: Reflects,
        script: impl Fn(&Seen) -> Says + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let (seen, stop) = (Arc::default(), CancellationToken::new());
        let dynamic = Dynamic {
            pool: DescriptorPool::decode(descriptor_set).expect("a descriptor set"),
            script: Arc::new(script),
            seen: Arc::clone(&seen),
        };
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptor_set);
        let routes = match reflects {
            Reflects::V1 => Routes::new(reflection.build_v1().expect("reflection")),
            Reflects::V1Alpha => Routes::new(reflection.build_v1alpha().expect("reflection")),
            Reflects::No => Routes::default(),
        };
        let questions = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&questions);
        let count = axum::middleware::map_request(move |request: http::Request<axum::body::Body>| {
            let is_question = request.uri().path().contains("ServerReflection");
            counted.fetch_add(usize::from(is_question), Ordering::SeqCst);
            async move { request }
        });
        let routes = Routes::from(routes.into_axum_router().fallback_service(dynamic).layer(count));
        let told = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let serving = Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, told);
            serving.await.expect("the sample serves");
        });
        Self { address, seen, questions, stop, server }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All calls so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// How often it was asked for its types.
    pub fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }

    /// Closes its connections and its port.
    pub async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.server).await.expect("the sample ends in good order");
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        self.stop.cancel();
        self.server.abort();
    }
}

#[derive(Clone)]
struct Dynamic {
    pool: DescriptorPool,
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Dynamic {
    fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        self.pool.get_service_by_name(service)?.methods().find(|one| one.name() == method)
    }

    async fn answer(
        self,
        method: Option<MethodDescriptor>,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        let method = method.ok_or_else(|| Status::unimplemented("no such method"))?;
        let metadata = request.metadata().iter().filter_map(|entry| match entry {
            tonic::metadata::KeyAndValueRef::Ascii(key, value) => {
                Some((key.to_string(), value.to_str().ok()?.to_owned()))
            }
            tonic::metadata::KeyAndValueRef::Binary(..) => None,
        });
        let metadata = metadata.collect();
        let message = DynamicMessage::decode(method.input(), request.into_inner())
            .map_err(|error| Status::internal(format!("the request is garbage: {error}")))?;
        let request = serde_json::to_value(&message).map_err(|error| Status::internal(error.to_string()))?;
        let seen = Seen { method: method.name().to_owned(), metadata, request };
        let says = (self.script)(&seen);
        self.seen.lock().push(seen);
        let bytes = match says {
            Says::Json(json) => DynamicMessage::deserialize(method.output(), json)
                .map_err(|error| Status::internal(format!("the script is wrong: {error}")))?
                .encode_to_vec(),
            Says::Bytes(bytes) => bytes,
            Says::Status(status) => return Err(status),
            Says::Nothing => std::future::pending().await,
        };
        Ok(Response::new(bytes.into()))
    }
}

impl tower::Service<http::Request<axum::body::Body>> for Dynamic {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<axum::body::Body>) -> Self::Future {
        let dynamic = self.clone();
        Box::pin(async move {
            let method = dynamic.method(request.uri().path());
            let unary = Unary { dynamic, method };
            Ok(tonic::server::Grpc::new(Plain).unary(unary, request).await)
        })
    }
}

struct Unary {
    dynamic: Dynamic,
    method: Option<MethodDescriptor>,
}

impl tonic::server::UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        Box::pin(self.dynamic.clone().answer(self.method.clone(), request))
    }
}

/// Messages as their bytes.
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
