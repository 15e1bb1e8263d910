//! No crate has a circle: whatever a file uses, directly or through others, never uses that file. Checked on files and on
//! modules (which are files, or folders of them).
//!
//! A path counts for the file that defines what it names: `super::Thing` that the parent only re-exports from a sibling is a
//! path to the sibling. Unit tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Segments of a module's path within its crate; the root has none.
type ModulePath = Vec<String>;

/// What one module says: the names that it defines itself, and those that it brings in from elsewhere.
#[derive(Default)]
struct Module {
    file: PathBuf,
    defined: BTreeSet<String>,
    /// Name here -> path as written.
    imported: BTreeMap<String, Vec<String>>,
    /// Paths whose every name is brought in.
    globs: Vec<Vec<String>>,
    /// Paths that the module's code mentions.
    mentioned: Vec<Vec<String>>,
    /// Types that the whole crate, or everybody, may name.
    public_types: Vec<String>,
}

type Crate = BTreeMap<ModulePath, Module>;

/// Reads the module `path` whose code is in `file`, and those below it.
fn read_module(file: &Path, path: ModulePath, modules: &mut Crate) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let items = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).items;
    let below = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("lib" | "main" | "mod") => file.parent().unwrap().to_path_buf(),
        Some(stem) => file.with_file_name(stem),
        None => unreachable!("{}", file.display()),
    };
    read_items(&items, file, &below, path, modules);
}

fn read_items(items: &[syn::Item], file: &Path, below: &Path, path: ModulePath, modules: &mut Crate) {
    let mut module = Module { file: file.to_path_buf(), ..Module::default() };
    for item in items.iter().filter(|item| !is_test(attributes(item))) {
        match item {
            syn::Item::Mod(child) => {
                let name = child.ident.to_string();
                let child_path = [path.clone(), vec![name.clone()]].concat();
                if let Some((_, items)) = &child.content {
                    read_items(items, file, &below.join(&name), child_path, modules);
                } else {
                    let files = [below.join(format!("{name}.rs")), below.join(&name).join("mod.rs")];
                    let file = files.iter().find(|file| file.exists());
                    let file = file.unwrap_or_else(|| panic!("no file of {child_path:?}"));
                    read_module(file, child_path, modules);
                }
            }
            syn::Item::Use(used) => read_use(&used.tree, &mut Vec::new(), &mut module),
            other => {
                module.defined.extend(defined_name(other));
                module.public_types.extend(public_type(other));
                Mentions(&mut module.mentioned).visit_item(other);
            }
        }
    }
    modules.insert(path, module);
}

fn read_use(tree: &syn::UseTree, prefix: &mut Vec<String>, module: &mut Module) {
    match tree {
        syn::UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            read_use(&path.tree, prefix, module);
            prefix.pop();
        }
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| read_use(tree, prefix, module)),
        syn::UseTree::Glob(_) => {
            module.globs.push(prefix.clone());
            module.mentioned.push(prefix.clone());
        }
        syn::UseTree::Name(_) | syn::UseTree::Rename(_) => {
            let (name, here) = match tree {
                syn::UseTree::Rename(rename) => (rename.ident.to_string(), rename.rename.to_string()),
                syn::UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
                _ => unreachable!("one of the two"),
            };
            let mut path = prefix.clone();
            let here = if name == "self" { prefix.last().cloned().unwrap_or(here) } else { here };
            if name != "self" {
                path.push(name);
            }
            module.mentioned.push(path.clone());
            module.imported.insert(here, path);
        }
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether code is a test's: `#[cfg(test)]`.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    let words = |list: &syn::MetaList| list.tokens.to_string() == "test";
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(words))
}

fn defined_name(item: &syn::Item) -> Option<String> {
    Some(match item {
        syn::Item::Const(item) => item.ident.to_string(),
        syn::Item::Enum(item) => item.ident.to_string(),
        syn::Item::Fn(item) => item.sig.ident.to_string(),
        syn::Item::Macro(item) => item.ident.as_ref()?.to_string(),
        syn::Item::Static(item) => item.ident.to_string(),
        syn::Item::Struct(item) => item.ident.to_string(),
        syn::Item::Trait(item) => item.ident.to_string(),
        syn::Item::Type(item) => item.ident.to_string(),
        syn::Item::Union(item) => item.ident.to_string(),
        _ => return None,
    })
}

/// The name of a type that is `pub` or `pub(crate)`.
fn public_type(item: &syn::Item) -> Option<String> {
    let visibility = match item {
        syn::Item::Enum(item) => &item.vis,
        syn::Item::Struct(item) => &item.vis,
        syn::Item::Trait(item) => &item.vis,
        syn::Item::Type(item) => &item.vis,
        syn::Item::Union(item) => &item.vis,
        _ => return None,
    };
    let is_public = match visibility {
        syn::Visibility::Public(_) => true,
        syn::Visibility::Restricted(of) => of.path.is_ident("crate"),
        syn::Visibility::Inherited => false,
    };
    is_public.then(|| defined_name(item))?
}

/// Collects the paths of at least two segments that code mentions; a single name is a local one or was brought in by `use`.
struct Mentions<'a>(&'a mut Vec<Vec<String>>);

impl<'ast> Visit<'ast> for Mentions<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 && path.leading_colon.is_none() {
            self.0.push(segments);
        }
        visit::visit_path(self, path);
    }

    /// Who may see an item is no use of it.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_item_use(&mut self, used: &'ast syn::ItemUse) {
        let mut module = Module::default();
        read_use(&used.tree, &mut Vec::new(), &mut module);
        self.0.append(&mut module.mentioned);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        // The arguments of most macros are expressions, separated by commas; others are left alone.
        let parser = syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        if let Ok(arguments) = called.parse_body_with(parser) {
            for argument in &arguments {
                visit::visit_expr(self, argument);
                // What was parsed here lives no longer than this call, so it is visited by a visitor of its own.
            }
        }
    }
}

/// The module whose file defines what `path`, as written in `from`, names; none for other crates and local names.
fn defining_module(modules: &Crate, from: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
    // Re-exports may lead round in a ring; a real one is never deep.
    if depth > 16 {
        return None;
    }
    let mut at = from.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (at, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|segment| segment == "super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        first => {
            let module = &modules[from];
            let child = [from.clone(), vec![first.to_owned()]].concat();
            if !modules.contains_key(&child) && !module.imported.contains_key(first) {
                return None;
            }
        }
    }
    while let Some(name) = rest.first() {
        let child = [at.clone(), vec![name.clone()]].concat();
        if modules.contains_key(&child) {
            (at, rest) = (child, &rest[1..]);
            continue;
        }
        let module = &modules[&at];
        if module.defined.contains(name) {
            return Some(at);
        }
        if let Some(path) = module.imported.get(name) {
            // A name that one file brings in for itself says nothing about where the other finds it.
            let whole = [path.clone(), rest[1..].to_vec()].concat();
            return if path == rest && at == *from {
                None
            } else {
                defining_module(modules, &at, &whole, depth + 1)
            };
        }
        let found = module.globs.iter().find_map(|glob| {
            let whole = [glob.clone(), rest.to_vec()].concat();
            let target = defining_module(modules, &at, &whole, depth + 1)?;
            modules[&target].defined.contains(name).then_some(target)
        });
        return Some(found.unwrap_or(at));
    }
    Some(at)
}

/// Node -> the nodes that it uses -> a path that does.
type Uses = BTreeMap<String, BTreeMap<String, String>>;

/// What each file of a crate uses, by the names `node_of` gives to files; a file without a name is left out.
fn uses_between(modules: &Crate, node_of: impl Fn(&ModulePath, &Module) -> Option<String>) -> Uses {
    let mut uses = Uses::new();
    for (path, module) in modules {
        let Some(node) = node_of(path, module) else { continue };
        let used = uses.entry(node.clone()).or_default();
        for mentioned in &module.mentioned {
            let target = defining_module(modules, path, mentioned, 0);
            let other = target.and_then(|target| node_of(&target, &modules[&target]));
            if let Some(other) = other.filter(|other| *other != node) {
                used.entry(other).or_insert_with(|| mentioned.join("::"));
            }
        }
    }
    uses
}

/// The sets of nodes that use each other in a ring, by the first of each: lines that say who uses whom by which path.
fn circles(uses: &Uses) -> BTreeMap<String, String> {
    let reached = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(node) = next.pop() {
            for used in uses.get(node).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(used.clone()) {
                    next.push(used);
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&String, BTreeSet<String>> = uses.keys().map(|node| (node, reached(node))).collect();
    let mut found: Vec<BTreeSet<&String>> = Vec::new();
    for (&node, all) in &reach {
        if all.contains(node) && !found.iter().any(|circle| circle.contains(node)) {
            found.push(all.iter().filter(|&other| reach[other].contains(node)).collect());
        }
    }
    let lines = |circle: &BTreeSet<&String>| {
        let inside = circle.iter().flat_map(|&node| {
            let used = uses[node].iter().filter(|(other, _)| circle.contains(other));
            used.map(move |(other, path)| format!("  {node} uses {other} ({path})"))
        });
        inside.collect::<Vec<_>>().join("\n")
    };
    found.iter().filter_map(|circle| Some(((*circle.first()?).clone(), lines(circle)))).collect()
}

/// Every crate of the workspace: its name and its modules.
fn crates() -> Vec<(String, Crate)> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut roots = vec![
        ("rlt".to_owned(), workspace.join("src/lib.rs")),
        ("the command line".to_owned(), workspace.join("src/main.rs")),
    ];
    for entry in fs::read_dir(workspace.join("crates")).unwrap() {
        let entry = entry.unwrap();
        roots.push((entry.file_name().into_string().unwrap(), entry.path().join("src/lib.rs")));
    }
    roots
        .into_iter()
        .map(|(name, root)| {
            let mut modules = Crate::new();
            read_module(&root, Vec::new(), &mut modules);
            (name, modules)
        })
        .collect()
}

#[test]
fn no_file_uses_itself_through_others() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    for (name, modules) in crates() {
        let file = |_: &ModulePath, module: &Module| {
            Some(module.file.strip_prefix(workspace).unwrap().display().to_string())
        };
        let uses = uses_between(&modules, file);
        assert!(uses.len() < 3 || uses.values().any(|used| !used.is_empty()), "{name}: nothing read");
        found.extend(circles(&uses));
    }
    assert!(found.is_empty(), "circles: {:#?}", found.values());
}

#[test]
fn no_module_uses_itself_through_its_neighbours() {
    let mut found = BTreeMap::new();
    for (name, modules) in crates() {
        let parents: BTreeSet<ModulePath> = modules
            .keys()
            .filter(|path| !path.is_empty())
            .map(|path| path[..path.len() - 1].to_vec())
            .collect();
        for parent in parents {
            // A child stands for all that is below it; the parent's own file only says who its children are.
            let child = |path: &ModulePath, _: &Module| {
                let below = path.len() > parent.len() && path.starts_with(&parent);
                below.then(|| format!("{name}::{}", path[..=parent.len()].join("::")))
            };
            found.extend(circles(&uses_between(&modules, child)));
        }
    }
    assert!(found.is_empty(), "circles: {:#?}", found.values());
}

/// Names that stand for two types of one crate, with the reason.
const ONE_NAME_TWICE: &[(&str, &str)] = &[(
    "rlt-engine::View",
    "a factor of a product as the kernels of one number format read it; the other format's stands in another folder",
)];

#[test]
fn no_two_public_types_of_a_crate_have_one_name() {
    let mut found = BTreeMap::new();
    for (name, modules) in crates() {
        let mut files: BTreeMap<&String, Vec<String>> = BTreeMap::new();
        for module in modules.values() {
            for public_type in &module.public_types {
                files.entry(public_type).or_default().push(module.file.display().to_string());
            }
        }
        files.retain(|_, files| files.len() > 1);
        found.extend(files.into_iter().map(|(one, files)| (format!("{name}::{one}"), files)));
    }
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let known: Vec<&str> = ONE_NAME_TWICE.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known, "rename one, or say why both are called so: {found:#?}");
}
