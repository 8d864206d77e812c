//! The wire types, clients and servers of package `sagad.v1`, generated from `proto/`.
//!
//! Everything is reached as `proto::Saga`, `proto::saga_service_server::SagaService`
//! and so on. Only the edges of the program know these types: the rooms behind them
//! have types of their own, already checked.

use tonic::Code;

use crate::saga::ids::Timestamp;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    rustdoc::all,
    reason = "generated: its comments live in the .proto files"
)]
mod generated {
    tonic::include_proto!("sagad.v1");
}

pub use generated::*;

/// The encoded `FileDescriptorSet` of `proto/`, imports and comments included: what
/// server reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("sagad_v1");

const MILLIS_PER_SECOND: i64 = 1_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// A point in time on the wire.
#[must_use]
pub fn timestamp(Timestamp(millis): Timestamp) -> prost_types::Timestamp {
    let nanos = millis.rem_euclid(MILLIS_PER_SECOND) * NANOS_PER_MILLI;
    prost_types::Timestamp {
        seconds: millis.div_euclid(MILLIS_PER_SECOND),
        nanos: i32::try_from(nanos).expect("below a billion"),
    }
}

/// The name of a gRPC status code as the protocol writes it, such as `NOT_FOUND`.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
