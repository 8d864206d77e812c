//! Files put together into one pool of types, although each service gives them in its own way.
//!
//! Servers send a file with or without what it imports, the same file twice or under two names, imports
//! under a path that they do not answer to, and names that are relative. None of this matters once every
//! name that a file uses has been found: each file then imports the files that define what it uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use prost_reflect::DescriptorPool;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use super::editions;

/// Most files of one service, imports included.
pub(super) const FILES_MAX: usize = 2_000;
/// Most bytes of all of them together.
pub(super) const FILES_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The files found so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    by_name: BTreeMap<String, FileDescriptorProto>,
    /// Which file defines a full name.
    defined: HashMap<String, String>,
    /// Names under which a file came that is known under another one.
    aliases: BTreeSet<String>,
    bytes: usize,
}

/// What the files speak of and none of them has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// Imports, by path.
    pub(super) imports: BTreeSet<String>,
    /// Types, by full name.
    pub(super) types: BTreeSet<String>,
}

impl Files {
    /// Takes an encoded file; one that is known already is left out.
    ///
    /// # Errors
    /// It is no file, or there are too many.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes += bytes.len();
        if self.bytes > FILES_MAX_BYTES {
            return Err(format!("the types take more than {FILES_MAX_BYTES} bytes"));
        }
        let mut file = editions::decode(bytes).map_err(|error| format!("a file cannot be read: {error}"))?;
        file.source_code_info = None;
        self.put(file)
    }

    fn put(&mut self, file: FileDescriptorProto) -> Result<(), String> {
        if self.by_name.len() >= FILES_MAX {
            return Err(format!("the types take more than {FILES_MAX} files"));
        }
        let name = file.name().to_owned();
        if self.by_name.contains_key(&name) {
            return Ok(());
        }
        let defines = definitions(&file);
        if defines.iter().any(|defined| self.defined.contains_key(defined)) {
            self.aliases.insert(name);
            return Ok(());
        }
        self.defined.extend(defines.into_iter().map(|defined| (defined, name.clone())));
        self.by_name.insert(name, file);
        Ok(())
    }

    /// Takes the file from those that come with every compiler, if it is one of them.
    pub(super) fn add_well_known(&mut self, import: &str) -> bool {
        let Some(file) = DescriptorPool::global().get_file_by_name(import) else { return false };
        let mut file = file.file_descriptor_proto().clone();
        file.source_code_info = None;
        self.put(file).is_ok()
    }

    /// Whether some file defines the service, message or enum.
    pub(super) fn defines(&self, full_name: &str) -> bool {
        self.defined.contains_key(full_name)
    }

    /// What is still to be found.
    pub(super) fn missing(&self) -> Missing {
        let mut missing = Missing::default();
        for file in self.by_name.values() {
            let unknown =
                |import: &&String| !self.by_name.contains_key(*import) && !self.aliases.contains(*import);
            missing.imports.extend(file.dependency.iter().filter(unknown).cloned());
            let mut file = file.clone();
            each_name(&mut file, &mut |scope, name| {
                if self.resolve(scope, name).is_none() {
                    missing.types.insert(name.trim_start_matches('.').to_owned());
                }
            });
        }
        missing
    }

    /// The file's own full name for `name` as it is meant in `scope`.
    fn resolve(&self, scope: &str, name: &str) -> Option<String> {
        if let Some(full) = name.strip_prefix('.') {
            return self.defined.contains_key(full).then(|| full.to_owned());
        }
        let mut scope = Some(scope);
        while let Some(within) = scope {
            let full = if within.is_empty() { name.to_owned() } else { format!("{within}.{name}") };
            if self.defined.contains_key(&full) {
                return Some(full);
            }
            scope = if within.is_empty() {
                None
            } else {
                Some(within.rsplit_once('.').map_or("", |(outer, _)| outer))
            };
        }
        None
    }

    /// All types, each file importing what it uses. Extensions of what is not there are left out.
    ///
    /// # Errors
    /// What is missing or contradicts itself.
    pub(super) fn pool(&self) -> Result<DescriptorPool, String> {
        let files = self.by_name.values().map(|file| self.linked(file)).collect::<Result<Vec<_>, _>>()?;
        // Whoever wrote the files may be anybody, and the library takes some things for given.
        let built = catch_unwind(AssertUnwindSafe(|| {
            let mut pool = DescriptorPool::new();
            pool.add_file_descriptor_protos(files).map(|()| pool)
        }));
        match built {
            Ok(Ok(pool)) => Ok(pool),
            Ok(Err(error)) => Err(format!("its types contradict themselves: {error}")),
            Err(_panic) => Err("its types contradict themselves".to_owned()),
        }
    }

    fn linked(&self, file: &FileDescriptorProto) -> Result<FileDescriptorProto, String> {
        let mut file = file.clone();
        match file.syntax.as_deref() {
            None | Some("proto2" | "proto3" | "editions") => {}
            Some("") => file.syntax = None,
            Some(other) => {
                return Err(format!("{} is in the syntax {other:?}, which is not known", file.name()));
            }
        }
        for message in &file.message_type {
            check_map_entries(message)?;
        }
        self.drop_lost_extensions(&mut file);
        let (mut imports, mut lost) = (BTreeSet::new(), None);
        each_name(&mut file, &mut |scope, name| match self.resolve(scope, name) {
            Some(full) => {
                imports.insert(self.defined[&full].clone());
                *name = format!(".{full}");
            }
            None => _ = lost.get_or_insert_with(|| name.clone()),
        });
        if let Some(lost) = lost {
            return Err(format!("{} uses {lost}, which is not to be had", file.name()));
        }
        imports.remove(file.name());
        file.dependency = imports.into_iter().collect();
        file.public_dependency.clear();
        file.weak_dependency.clear();
        Ok(file)
    }

    /// Most extensions are options for compilers; nobody needs them to write a message.
    fn drop_lost_extensions(&self, file: &mut FileDescriptorProto) {
        let package = file.package().to_owned();
        let keep = |scope: &str, extension: &FieldDescriptorProto| {
            let is_known = |name: &str| name.is_empty() || self.resolve(scope, name).is_some();
            is_known(extension.extendee()) && is_known(extension.type_name())
        };
        file.extension.retain(|extension| keep(&package, extension));
        file.message_type.iter_mut().for_each(|message| drop_extensions(message, &package, &keep));
    }
}

/// Drops the extensions of a message and of those within it that `keep` does not keep.
fn drop_extensions(
    message: &mut DescriptorProto,
    scope: &str,
    keep: &dyn Fn(&str, &FieldDescriptorProto) -> bool,
) {
    let scope = joined(scope, message.name());
    message.extension.retain(|extension| keep(&scope, extension));
    message.nested_type.iter_mut().for_each(|nested| drop_extensions(nested, &scope, keep));
}

fn joined(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

/// The full names of all messages, enums and services of a file.
fn definitions(file: &FileDescriptorProto) -> Vec<String> {
    fn within(message: &DescriptorProto, scope: &str, found: &mut Vec<String>) {
        let full = joined(scope, message.name());
        found.extend(message.enum_type.iter().map(|one| joined(&full, one.name())));
        message.nested_type.iter().for_each(|nested| within(nested, &full, found));
        found.push(full);
    }
    let package = file.package();
    let mut found = Vec::new();
    file.message_type.iter().for_each(|message| within(message, package, &mut found));
    found.extend(file.enum_type.iter().map(|one| joined(package, one.name())));
    found.extend(file.service.iter().map(|one| joined(package, one.name())));
    found
}

/// Shows each name of a type that the file uses, with the scope in which it stands.
fn each_name(file: &mut FileDescriptorProto, see: &mut dyn FnMut(&str, &mut String)) {
    fn field(field: &mut FieldDescriptorProto, scope: &str, see: &mut dyn FnMut(&str, &mut String)) {
        let names = [&mut field.type_name, &mut field.extendee];
        names.into_iter().flatten().filter(|name| !name.is_empty()).for_each(|name| see(scope, name));
    }
    fn message(one: &mut DescriptorProto, scope: &str, see: &mut dyn FnMut(&str, &mut String)) {
        let scope = joined(scope, one.name());
        one.field.iter_mut().chain(&mut one.extension).for_each(|one| field(one, &scope, see));
        one.nested_type.iter_mut().for_each(|nested| message(nested, &scope, see));
    }
    let package = file.package().to_owned();
    file.message_type.iter_mut().for_each(|one| message(one, &package, see));
    file.extension.iter_mut().for_each(|one| field(one, &package, see));
    for service in &mut file.service {
        let scope = joined(&package, service.name());
        for method in &mut service.method {
            let names = [&mut method.input_type, &mut method.output_type];
            names.into_iter().flatten().for_each(|name| see(&scope, name));
        }
    }
}

/// A map is a list of messages with a key and a value, and is read as such without a further look.
fn check_map_entries(message: &DescriptorProto) -> Result<(), String> {
    let is_entry = message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry);
    let numbers: Vec<_> = message.field.iter().map(FieldDescriptorProto::number).collect();
    if is_entry && numbers != [1, 2] {
        return Err(format!("{} is the entry of a map without a key or a value", message.name()));
    }
    message.nested_type.iter().try_for_each(check_map_entries)
}

#[cfg(test)]
mod tests;
