//! stub
use super::{
    Engine,
    error::EngineError,
    request::{ListAnswer, ListRequest},
};
impl Engine {
    #[allow(clippy::all, clippy::pedantic, unused)]
    pub async fn list(&self, request: ListRequest) -> Result<ListAnswer, EngineError> {
        unimplemented!()
    }
}
