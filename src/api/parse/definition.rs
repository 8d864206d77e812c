//! Requests of `DefinitionService`.

use super::violations::Violations;
use crate::api::limits::SOURCE_MAX_BYTES;
use crate::engine::error::EngineError;
use crate::proto;
use crate::saga::ids::DefinitionName;

/// The form of page tokens; a token of another form is refused.
const TOKEN_FORM: &str = "1";

/// Which definitions are wanted.
#[derive(Debug)]
pub struct ListDefinitions {
    /// Only this name.
    pub name: Option<DefinitionName>,
    /// Leave retired versions out.
    pub active_only: bool,
    /// 1 to 1000.
    pub page_size: usize,
    /// Only what stands behind this name and version.
    pub after: Option<(DefinitionName, u32)>,
}

/// Checks the source of a definition: that it is there and not too long.
pub fn source(text: String) -> Result<String, EngineError> {
    let mut bad = Violations::default();
    let source = bad.required("source", text, SOURCE_MAX_BYTES);
    bad.finish(|| source)
}

/// Checks which definition is meant; `lowest` is the lowest version that means something.
pub fn definition_version(
    name: &str,
    version: u32,
    lowest: u32,
) -> Result<(DefinitionName, u32), EngineError> {
    let mut bad = Violations::default();
    let name = bad.definition("name", name);
    if version < lowest {
        bad.add("version", "is required, from 1");
    }
    bad.finish(|| Some((name?, version)))
}

/// Checks a list of definitions.
pub fn list_definitions(request: proto::ListDefinitionsRequest) -> Result<ListDefinitions, EngineError> {
    let mut bad = Violations::default();
    let active_only = request.active_only;
    let name = match request.name.as_str() {
        "" => Some(None),
        given => bad.definition("name", given).map(Some),
    };
    let page_size = bad.page_size(request.page_size);
    let token = bad.page_token(request.page_token);
    let after = token.and_then(|token| {
        let after = after(&token, &request.name, active_only);
        bad.keep("page_token", after)
    });
    bad.finish(|| Some(ListDefinitions { name: name?, active_only, page_size: page_size?, after: after? }))
}

/// Where the page starts; `None` is the beginning.
fn after(token: &str, only: &str, active_only: bool) -> Result<Option<(DefinitionName, u32)>, &'static str> {
    if token.is_empty() {
        return Ok(None);
    }
    let read = read_token(token, only, active_only);
    read.map(Some).ok_or("was not given out for this request: start again without it")
}

/// The token of the page behind `last`. Names have no dots, so they can part the fields.
pub fn next_page_token(request: &ListDefinitions, last: (&DefinitionName, u32)) -> String {
    let only = request.name.as_ref().map_or("", DefinitionName::as_str);
    format!("{TOKEN_FORM}.{}.{only}.{}.{}", u8::from(request.active_only), last.0, last.1)
}

fn read_token(token: &str, only: &str, active_only: bool) -> Option<(DefinitionName, u32)> {
    let mut fields = token.split('.');
    let belongs = fields.next()? == TOKEN_FORM
        && fields.next()? == if active_only { "1" } else { "0" }
        && fields.next()? == only;
    let name = DefinitionName::parse(fields.next()?).ok()?;
    let version = fields.next()?.parse().ok()?;
    (belongs && fields.next().is_none()).then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::super::violations::fields_of;
    use super::*;

    fn request(name: &str, active_only: bool, page_token: &str) -> proto::ListDefinitionsRequest {
        proto::ListDefinitionsRequest {
            name: name.into(),
            active_only,
            page_token: page_token.into(),
            page_size: 0,
        }
    }

    #[test]
    fn a_page_token_belongs_to_its_request() {
        let first = list_definitions(request("order", true, "")).unwrap();
        let order = DefinitionName::parse("order").unwrap();
        let token = next_page_token(&first, (&order, 7));
        let second = list_definitions(request("order", true, &token)).unwrap();
        assert_eq!(second.after, Some((order, 7)));
        for other in [
            request("order", false, &token),
            request("", true, &token),
            request("order", true, "x"),
            request("order", true, &format!("{token}.1")),
        ] {
            assert_eq!(fields_of(list_definitions(other)), ["page_token"]);
        }
    }

    #[test]
    fn a_source_must_be_there_and_of_bearable_length() {
        assert_eq!(fields_of(source(String::new())), ["source"]);
        assert_eq!(fields_of(source("x".repeat(SOURCE_MAX_BYTES + 1))), ["source"]);
        assert!(source("saga: order".into()).is_ok());
    }

    #[test]
    fn version_zero_only_means_something_when_reading() {
        assert!(definition_version("order", 0, 0).is_ok());
        assert_eq!(fields_of(definition_version("order", 0, 1)), ["version"]);
        assert_eq!(fields_of(definition_version("", 0, 1)), ["name", "version"]);
    }
}
