//! The types of a service, and what it offers.

use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

use crate::saga::suggest::nearest;

/// Most names in one message about what there is.
const NAMES_MAX: usize = 20;

/// A method's full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MethodName {
    /// With its package: `shop.stock.v1.StockService`.
    pub(super) service: String,
    /// `Deduct`.
    pub(super) method: String,
}

impl MethodName {
    /// Reads `shop.stock.v1.StockService/Deduct`; a slash in front is left out.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub(super) fn parse(target: &str) -> Result<Self, String> {
        const FORM: &str = "write the full gRPC method, such as shop.stock.v1.StockService/Deduct";
        if target.is_empty() {
            return Err(format!("is required; {FORM}"));
        }
        let text = target.strip_prefix('/').unwrap_or(target);
        let Some((service, method)) = text.split_once('/') else {
            return Err(format!("{target:?} has no slash between service and method; {FORM}"));
        };
        if !service.split('.').all(is_identifier) || !is_identifier(method) {
            return Err(format!("{target:?} is no method's name; {FORM}"));
        }
        Ok(Self { service: service.to_owned(), method: method.to_owned() })
    }

    /// The path of its calls.
    pub(super) fn path(&self) -> PathAndQuery {
        let path = format!("/{}/{}", self.service, self.method);
        path.try_into().expect("identifiers and dots are a path")
    }
}

impl std::fmt::Display for MethodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.method)
    }
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Finds a unary method among the types.
///
/// # Errors
/// Why it cannot be called, and what is offered instead.
pub(super) fn unary(pool: &DescriptorPool, name: &MethodName) -> Result<MethodDescriptor, String> {
    let Some(service) = pool.get_service_by_name(&name.service) else {
        let offered: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
        return Err(no_service(&name.service, &offered, pool.services()));
    };
    let Some(method) = service.methods().find(|method| method.name() == name.method) else {
        return Err(no_method(&service, &name.method));
    };
    let streams = match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => return Ok(method),
        (true, false) => "a client-streaming",
        (false, true) => "a server-streaming",
        (true, true) => "a streaming",
    };
    Err(format!("{name} is {streams} method; a step calls unary ones: {}", unary_methods(&service)))
}

/// The service is not there; what is, with the methods of those whose types are known.
pub(super) fn no_service(
    wanted: &str,
    offered: &[String],
    known: impl Iterator<Item = ServiceDescriptor>,
) -> String {
    let meant = meant(wanted, offered.iter().map(String::as_str));
    let text = format!("there is no service {wanted}{meant}");
    let known: Vec<ServiceDescriptor> = known.collect();
    let with_methods = |name: &String| {
        let service = known.iter().find(|service| service.full_name() == name.as_str());
        service.map_or(name.clone(), |service| format!("{name} ({})", unary_methods(service)))
    };
    match offered {
        [] => text + "; no service is offered",
        _ => format!("{text}; offered: {}", listed(offered.iter().map(with_methods).collect())),
    }
}

fn no_method(service: &ServiceDescriptor, wanted: &str) -> String {
    let methods: Vec<MethodDescriptor> = service.methods().collect();
    let meant = meant(wanted, methods.iter().map(MethodDescriptor::name));
    let (service_name, unary) = (service.full_name(), unary_methods(service));
    format!("{service_name} has no method {wanted}{meant}; its unary methods: {unary}")
}

fn meant<'a>(wanted: &str, offered: impl Iterator<Item = &'a str>) -> String {
    nearest(wanted, offered).map_or(String::new(), |meant| format!("; did you mean {meant}?"))
}

fn unary_methods(service: &ServiceDescriptor) -> String {
    let is_unary = |method: &MethodDescriptor| !method.is_client_streaming() && !method.is_server_streaming();
    listed(service.methods().filter(is_unary).map(|method| method.name().to_owned()).collect())
}

/// The names, as many as fit.
pub(super) fn listed(mut names: Vec<String>) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let names = names.join(", ");
    if more > 0 { format!("{names} and {more} more") } else { names }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_named_in_full_with_or_without_a_slash_in_front() {
        for text in ["shop.stock.v1.StockService/Deduct", "/shop.stock.v1.StockService/Deduct"] {
            assert_eq!(MethodName::parse(text).unwrap().path(), "/shop.stock.v1.StockService/Deduct");
        }
        assert_eq!(MethodName::parse("Greeter/SayHello").unwrap().to_string(), "Greeter/SayHello");
    }

    #[test]
    fn what_is_no_method_is_told_how_to_write_one() {
        for text in [
            "",
            "Deduct",
            "shop.Stock.Deduct",
            "shop..Stock/Deduct",
            "shop.Stock/",
            "a/b/c",
            "POST /a",
            "//a",
        ] {
            let problem = MethodName::parse(text).unwrap_err();
            assert!(problem.contains("such as shop.stock.v1.StockService/Deduct"), "{problem}");
        }
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        assert_eq!(listed(vec![]), "none");
        let many = (0..30).map(|n| n.to_string()).collect();
        assert!(listed(many).ends_with("19 and 10 more"));
    }
}
