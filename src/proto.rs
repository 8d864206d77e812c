//! The wire types, clients and servers of package `sagad.v1`, generated from `proto/`.
//!
//! Everything is reached as `proto::Saga`, `proto::saga_service_server::SagaService`
//! and so on. Only the edges of the program know these types: the rooms behind them
//! have types of their own, already checked.

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
