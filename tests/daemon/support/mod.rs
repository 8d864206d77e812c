//! What the tests of the real binary share.

pub mod chance;
pub mod daemon;
pub mod http_service;
pub mod participant;
pub mod play;
pub mod shared;
pub mod wire;
pub mod worker;
pub mod world;

#[path = "../../../src/participant/grpc/tests/service.rs"]
pub mod sample_service;
