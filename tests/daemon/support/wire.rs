//! Bytes that no well-behaved client or participant would send.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::{Buf as _, BufMut as _, Bytes};
use sagad::proto::StartSagaResponse;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Body, BoxFuture, Service, StdError};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// A start whose texts may be any bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RawStart {
    #[prost(bytes = "vec", tag = "1")]
    pub saga_id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub definition: String,
    #[prost(bytes = "vec", tag = "4")]
    pub input_json: Vec<u8>,
}

/// Sends a start as its bytes are.
pub async fn start(channel: Channel, request: RawStart) -> Result<StartSagaResponse, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static("/sagad.v1.SagaService/StartSaga");
    let codec = tonic_prost::ProstCodec::<RawStart, StartSagaResponse>::default();
    Ok(client.unary(Request::new(request), path, codec).await?.into_inner())
}

/// Calls any method with an empty message.
pub async fn call_anything(channel: Channel, path: &'static str) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(path);
    Ok(client.unary(Request::new(Bytes::new()), path, Verbatim).await?.into_inner())
}

/// Begins a start whose message never comes, over the channel's connection. It is under way once this
/// returns, and in flight until the answer is dropped.
pub async fn begin_start(channel: Channel) -> Result<BoxFuture<StartSagaResponse, Status>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static("/sagad.v1.SagaService/StartSaga");
    let mut begun: BoxFuture<StartSagaResponse, Status> = Box::pin(async move {
        let codec = tonic_prost::ProstCodec::<RawStart, StartSagaResponse>::default();
        let message = Request::new(tokio_stream::pending());
        client.client_streaming(message, path, codec).await.map(Response::into_inner)
    });
    match futures::poll!(&mut begun) {
        std::task::Poll::Pending => Ok(begun),
        std::task::Poll::Ready(answer) => Err(answer.err().unwrap_or_else(|| Status::internal("answered"))),
    }
}

/// A participant that answers every call with the same bytes as its message.
pub struct Babbler {
    /// Where it listens.
    pub address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl Babbler {
    /// Starts one.
    pub async fn saying(message: &'static [u8]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(Babble(Bytes::from_static(message)))
                .serve_with_incoming(TcpListenerStream::new(listener));
            served.await.expect("the babbler serves");
        });
        Ok(Self { address, server })
    }
}

impl Drop for Babbler {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Babble(Bytes);

impl tonic::server::NamedService for Babble {
    const NAME: &'static str = "sagad.v1.ParticipantService";
}

impl<B> Service<http::Request<B>> for Babble
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = Method(self.0.clone());
        Box::pin(async move { Ok(tonic::server::Grpc::new(Verbatim).unary(method, request).await) })
    }
}

struct Method(Bytes);

impl tonic::server::UnaryService<Bytes> for Method {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        let answer = self.0.clone();
        Box::pin(async move { Ok(Response::new(answer)) })
    }
}

/// A codec for messages that are taken and given as they are.
#[derive(Debug, Clone, Copy)]
struct Verbatim;

impl Codec for Verbatim {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Verbatim {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for Verbatim {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
