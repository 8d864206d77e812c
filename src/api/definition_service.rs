//! `DefinitionService`: keeps definitions.

use tonic::{Request, Response, Status};

use super::status::from_engine;
use super::{Context, convert, parse};
use crate::engine::request::DefinitionView;
use crate::proto;
use crate::proto::definition_service_server::DefinitionService;
use crate::saga::ids::DefinitionName;

/// The service.
pub(super) struct DefinitionApi {
    context: Context,
}

impl DefinitionApi {
    pub(super) fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl DefinitionService for DefinitionApi {
    async fn register_definition(
        &self,
        request: Request<proto::RegisterDefinitionRequest>,
    ) -> Result<Response<proto::RegisterDefinitionResponse>, Status> {
        let request = request.into_inner();
        let source = parse::source(request.source).map_err(from_engine)?;
        let engine = &self.context.engine;
        let answer = engine.register_definition(&source, request.validate_only).await.map_err(from_engine)?;
        Ok(Response::new(proto::RegisterDefinitionResponse {
            definition: Some(convert::definition(&answer.view)),
            existed: answer.existed,
            warnings: answer.warnings,
        }))
    }

    async fn get_definition(
        &self,
        request: Request<proto::GetDefinitionRequest>,
    ) -> Result<Response<proto::GetDefinitionResponse>, Status> {
        let request = request.get_ref();
        let (name, version) =
            parse::definition_version(&request.name, request.version, 0).map_err(from_engine)?;
        let view = self.context.engine.definition(&name, version).await.map_err(from_engine)?;
        Ok(Response::new(proto::GetDefinitionResponse { definition: Some(convert::definition(&view)) }))
    }

    async fn list_definitions(
        &self,
        request: Request<proto::ListDefinitionsRequest>,
    ) -> Result<Response<proto::ListDefinitionsResponse>, Status> {
        let list = parse::list_definitions(request.into_inner()).map_err(from_engine)?;
        let all = self.context.engine.definitions().await.map_err(from_engine)?;
        let (page, next_page_token) = page(&list, &all);
        Ok(Response::new(proto::ListDefinitionsResponse {
            definitions: page.into_iter().map(convert::definition_row).collect(),
            next_page_token,
        }))
    }

    async fn retire_definition(
        &self,
        request: Request<proto::RetireDefinitionRequest>,
    ) -> Result<Response<proto::RetireDefinitionResponse>, Status> {
        let request = request.get_ref();
        let (name, version) =
            parse::definition_version(&request.name, request.version, 1).map_err(from_engine)?;
        let view = self.context.engine.retire_definition(&name, version).await.map_err(from_engine)?;
        Ok(Response::new(proto::RetireDefinitionResponse { definition: Some(convert::definition(&view)) }))
    }
}

fn place(view: &DefinitionView) -> (&DefinitionName, u32) {
    (&view.definition.name, view.definition.version.0)
}

/// The definitions of a page, and the token of the next one.
fn page<'a>(list: &parse::ListDefinitions, all: &'a [DefinitionView]) -> (Vec<&'a DefinitionView>, String) {
    let mut wanted: Vec<&DefinitionView> = all
        .iter()
        .filter(|view| list.name.as_ref().is_none_or(|name| *name == view.definition.name))
        .filter(|view| view.active || !list.active_only)
        .filter(|view| list.after.as_ref().is_none_or(|(name, version)| place(view) > (name, *version)))
        .collect();
    wanted.sort_by(|a, b| place(a).cmp(&place(b)));
    let more = wanted.len() > list.page_size;
    wanted.truncate(list.page_size);
    let token = match wanted.last() {
        Some(end) if more => parse::next_page_token(list, place(end)),
        Some(_) | None => String::new(),
    };
    (wanted, token)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::convert::test_values::definition;
    use crate::saga::ids::Version;

    fn view(name: &str, version: u32, active: bool) -> DefinitionView {
        let mut definition = definition(vec![]);
        definition.name = DefinitionName::parse(name).unwrap();
        definition.version = Version(version);
        DefinitionView { definition: Arc::new(definition), active, created_at: None }
    }

    fn walk(request: &proto::ListDefinitionsRequest, all: &[DefinitionView]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut request = request.clone();
        loop {
            let list = parse::list_definitions(request.clone()).unwrap();
            let (found, token) = page(&list, all);
            seen.extend(found.iter().map(|v| format!("{}/{}", v.definition.name, v.definition.version)));
            if token.is_empty() {
                return seen;
            }
            request.page_token = token;
        }
    }

    #[test]
    fn pages_of_any_size_show_each_version_once_in_order() {
        let all = [
            view("refund", 1, true),
            view("order", 10, true),
            view("order", 2, false),
            view("order", 1, false),
        ];
        for page_size in 1..=5 {
            let request = proto::ListDefinitionsRequest { page_size, ..Default::default() };
            assert_eq!(walk(&request, &all), ["order/1", "order/2", "order/10", "refund/1"]);
            let active = proto::ListDefinitionsRequest { active_only: true, ..request.clone() };
            assert_eq!(walk(&active, &all), ["order/10", "refund/1"]);
            let one = proto::ListDefinitionsRequest { name: "order".into(), ..request };
            assert_eq!(walk(&one, &all), ["order/1", "order/2", "order/10"]);
        }
    }
}
