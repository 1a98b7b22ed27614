//! Hosts and paths as one tree: `a.example/b/c` is the child `c` of the child `b` of the root that `a.example` names.
//!
//! A walk goes down as far as the request's segments are known, so its cost is bounded by the depth of the configuration and by the
//! request, never by the number of routes. Every node knows the next shorter prefix that has routes, which makes falling back cheap.
//!
//! All edges are in one hash table with the segment in the entry, and a node is a few numbers: with many routes, what a search costs is
//! the memory it touches, and this is one cache line a segment, one for the node, and one for its routes. The keys are the
//! operator's, so requests cannot aim collisions; entries are compared in full.

use super::Candidate;
use crate::config::{placeholder, segments};
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::Hasher;

/// Row of [`Tree::nodes`].
pub(super) type NodeId = u32;

/// No node.
const NONE: NodeId = NodeId::MAX;
/// As parents: what a host's name and what the end of a wildcard are looked up under.
pub(super) const EXACT_HOST: NodeId = NONE - 1;
pub(super) const WILDCARD_HOST: NodeId = NONE - 2;
pub(super) const BEGINNING_HOST: NodeId = NONE - 3;
/// What every placeholder of a path is called here. A segment of a request that is written so finds it, too, as it does by being any segment.
pub(super) const PLACEHOLDER: &str = "{}";

/// Bytes of a segment that are kept in its edge.
const INLINE: usize = 20;

/// Half a cache line.
#[derive(Clone, Debug)]
#[repr(align(32))]
struct Edge {
    /// [`NONE`]: an empty place.
    parent: NodeId,
    child: NodeId,
    length: u32,
    /// The segment, or where it begins in [`Tree::long`].
    bytes: [u8; INLINE],
}

#[derive(Debug)]
struct Node {
    /// Row in [`Tree::candidates`] of the routes whose path ends here; behind them those for this path and all below it.
    first: u32,
    exact: u32,
    prefix: u32,
    /// The nearest node above with prefix routes, or [`NONE`].
    shorter: NodeId,
    /// Of a root: row of the router's regex sets, or [`NONE`].
    patterns: u32,
}

/// The hosts and paths of all routes.
#[derive(Debug)]
pub(super) struct Tree {
    /// Open addressing, at most half full; a power of two.
    edges: Box<[Edge]>,
    long: Box<[u8]>,
    nodes: Box<[Node]>,
    candidates: Box<[Candidate]>,
}

impl Tree {
    /// What `parent` and `segment` lead to.
    pub(super) fn child(&self, parent: NodeId, segment: &[u8]) -> Option<NodeId> {
        let mask = self.edges.len() - 1;
        let mut place = hash(parent, segment) & mask;
        loop {
            let edge = &self.edges[place];
            if edge.parent == parent && edge.length as usize == segment.len() && self.segment(edge) == segment {
                return Some(edge.child);
            }
            if edge.parent == NONE {
                return None;
            }
            place = (place + 1) & mask;
        }
    }

    fn segment<'t>(&'t self, edge: &'t Edge) -> &'t [u8] {
        let length = edge.length as usize;
        if length <= INLINE {
            return &edge.bytes[..length];
        }
        let start = u32::from_ne_bytes([edge.bytes[0], edge.bytes[1], edge.bytes[2], edge.bytes[3]]) as usize;
        &self.long[start..start + length]
    }

    /// The deepest node on `path`, and whether `path` ends there.
    pub(super) fn walk(&self, root: NodeId, path: &str) -> (NodeId, bool) {
        let mut node = root;
        let [b'/', rest @ ..] = path.as_bytes() else {
            return (node, false);
        };
        let mut rest = rest;
        loop {
            let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
            match self.child(node, &rest[..end]) {
                None => return (node, false),
                Some(child) if end == rest.len() => return (child, true),
                Some(child) => (node, rest) = (child, &rest[end + 1..]),
            }
        }
    }

    /// Routes whose path ends at `node`, most conditions first.
    pub(super) fn exact(&self, node: NodeId) -> &[Candidate] {
        let node = &self.nodes[node as usize];
        &self.candidates[node.first as usize..][..node.exact as usize]
    }

    /// Routes for `node`'s path and all below it, most conditions first.
    pub(super) fn prefix(&self, node: NodeId) -> &[Candidate] {
        let node = &self.nodes[node as usize];
        &self.candidates[(node.first + node.exact) as usize..][..node.prefix as usize]
    }

    /// The next shorter prefix of `node` that has routes.
    pub(super) fn shorter(&self, node: NodeId) -> Option<NodeId> {
        Some(self.nodes[node as usize].shorter).filter(|&node| node != NONE)
    }

    /// The row of a root's regexes.
    pub(super) fn patterns(&self, root: NodeId) -> Option<u32> {
        Some(self.nodes[root as usize].patterns).filter(|&row| row != NONE)
    }
}

fn hash(parent: NodeId, segment: &[u8]) -> usize {
    let mut hasher = FxHasher::default();
    hasher.write_u32(parent);
    hasher.write(segment);
    hasher.finish() as usize
}

/// A tree that grows.
#[derive(Debug, Default)]
pub(super) struct TreeBuilder {
    edges: FxHashMap<(NodeId, Box<[u8]>), NodeId>,
    drafts: Vec<Draft>,
    /// In the order in which they were added; `true` for a prefix. One list, because most nodes have one route or none.
    routes: Vec<(NodeId, bool, Candidate)>,
}

#[derive(Debug)]
struct Draft {
    parent: NodeId,
    exact: u32,
    prefix: u32,
    patterns: u32,
}

impl TreeBuilder {
    /// The root of a host's paths; `named` is [`EXACT_HOST`] or [`WILDCARD_HOST`] with the name in lower case, or `None` for any host.
    pub(super) fn add_root(&mut self, named: Option<(NodeId, &str)>) -> NodeId {
        let root = self.add_node(NONE);
        if let Some((class, name)) = named {
            self.edges.insert((class, name.as_bytes().into()), root);
        }
        root
    }

    fn add_node(&mut self, parent: NodeId) -> NodeId {
        self.drafts.push(Draft { parent, exact: 0, prefix: 0, patterns: NONE });
        narrow(self.drafts.len() - 1)
    }

    /// Behind those of the same path that were added before.
    pub(super) fn add_exact(&mut self, root: NodeId, path: &str, candidate: Candidate) {
        let node = self.grow(root, path);
        self.drafts[node as usize].exact += 1;
        self.routes.push((node, false, candidate));
    }

    /// `prefix` without the `/*`; empty: every path.
    pub(super) fn add_prefix(&mut self, root: NodeId, prefix: &str, candidate: Candidate) {
        let node = self.grow(root, prefix);
        self.drafts[node as usize].prefix += 1;
        self.routes.push((node, true, candidate));
    }

    pub(super) fn set_patterns(&mut self, root: NodeId, row: usize) {
        self.drafts[root as usize].patterns = narrow(row);
    }

    fn grow(&mut self, root: NodeId, path: &str) -> NodeId {
        let mut node = root;
        for segment in path.strip_prefix('/').into_iter().flat_map(|path| path.split('/')) {
            let edge = (node, Box::from(segment.as_bytes()));
            node = match self.edges.get(&edge) {
                Some(&child) => child,
                None => {
                    let child = self.add_node(node);
                    self.edges.insert(edge, child);
                    child
                }
            };
        }
        node
    }

    pub(super) fn build(mut self) -> Tree {
        self.routes.sort_by_key(|(node, is_prefix, _)| (*node, *is_prefix));
        let candidates: Box<[Candidate]> = self.routes.into_iter().map(|(_, _, candidate)| candidate).collect();
        let (mut nodes, mut first): (Vec<Node>, u32) = (Vec::with_capacity(self.drafts.len()), 0);
        for Draft { parent, exact, prefix, patterns } in self.drafts {
            // A parent stands before its children.
            let above = nodes.get(parent as usize);
            let shorter = above.map_or(NONE, |above| if above.prefix > 0 { parent } else { above.shorter });
            nodes.push(Node { first, exact, prefix, shorter, patterns });
            first += exact + prefix;
        }
        let empty = Edge { parent: NONE, child: NONE, length: 0, bytes: [0; INLINE] };
        let mut edges = vec![empty; (2 * self.edges.len()).next_power_of_two().max(2)];
        let (mask, mut long) = (edges.len() - 1, Vec::new());
        for ((parent, segment), child) in self.edges {
            let mut bytes = [0; INLINE];
            match bytes.get_mut(..segment.len()) {
                Some(inline) => inline.copy_from_slice(&segment),
                None => {
                    bytes[..4].copy_from_slice(&narrow(long.len()).to_ne_bytes());
                    long.extend_from_slice(&segment);
                }
            }
            let mut place = hash(parent, &segment) & mask;
            while edges[place].parent != NONE {
                place = (place + 1) & mask;
            }
            edges[place] = Edge { parent, child, length: narrow(segment.len()), bytes };
        }
        Tree { edges: edges.into(), long: long.into(), nodes: nodes.into(), candidates }
    }
}

/// A path with all its placeholders under one name.
pub(super) fn nameless(path: &str) -> String {
    let name = |segment| if placeholder(segment).is_some() { PLACEHOLDER } else { segment };
    segments(path).flat_map(|segment| ["/", name(segment)]).collect()
}

/// Sizes of a configuration that fits in memory.
fn narrow(size: usize) -> u32 {
    u32::try_from(size)
        .ok()
        .filter(|&size| size < BEGINNING_HOST)
        .expect("fewer than four billion segments and bytes of them")
}
