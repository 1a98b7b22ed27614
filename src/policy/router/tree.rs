//! Paths as a tree of segments: `/a/b` is the child `b` of the child `a` of its host's root.
//!
//! A walk goes down as far as the request's segments are known, so its cost is bounded by the depth of the configuration and by the
//! request, never by the number of routes. Every node knows the next shorter prefix that has routes, which makes falling back cheap.
//! Children are looked up by hash; the keys are the operator's, so requests cannot aim collisions.

use super::Candidate;
use rustc_hash::FxHashMap;

/// Row of [`Tree::nodes`].
pub(super) type NodeId = u32;

#[derive(Debug, Default)]
struct Node {
    children: FxHashMap<Box<str>, NodeId>,
    /// Routes whose path ends here.
    exact: Vec<Candidate>,
    /// Routes for this path and all below it.
    prefix: Vec<Candidate>,
    /// The nearest node above with `prefix` routes.
    shorter: Option<NodeId>,
}

/// The paths of all hosts.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    pub(super) fn add_root(&mut self) -> NodeId {
        self.nodes.push(Node::default());
        NodeId::try_from(self.nodes.len() - 1).expect("limits.rs bounds the routes and their paths")
    }

    /// Behind those of the same path that were added before.
    pub(super) fn add_exact(&mut self, root: NodeId, path: &str, candidate: Candidate) {
        let node = self.grow(root, path);
        self.nodes[node as usize].exact.push(candidate);
    }

    /// `prefix` without the `/*`; empty: every path.
    pub(super) fn add_prefix(&mut self, root: NodeId, prefix: &str, candidate: Candidate) {
        let node = self.grow(root, prefix);
        self.nodes[node as usize].prefix.push(candidate);
    }

    fn grow(&mut self, root: NodeId, path: &str) -> NodeId {
        let mut node = root;
        for segment in path.strip_prefix('/').into_iter().flat_map(|path| path.split('/')) {
            node = match self.nodes[node as usize].children.get(segment) {
                Some(&child) => child,
                None => {
                    let child = self.add_root();
                    self.nodes[node as usize].children.insert(segment.into(), child);
                    child
                }
            };
        }
        node
    }

    /// Fills in [`Node::shorter`], once all routes are in. Parents are made before their children, so one pass is enough.
    pub(super) fn link(&mut self) {
        for parent in 0..self.nodes.len() {
            let node = &self.nodes[parent];
            let shorter = if node.prefix.is_empty() { node.shorter } else { NodeId::try_from(parent).ok() };
            let children: Vec<NodeId> = node.children.values().copied().collect();
            for child in children {
                self.nodes[child as usize].shorter = shorter;
            }
        }
    }

    /// The deepest node on `path`, and whether `path` ends there.
    pub(super) fn walk(&self, root: NodeId, path: &str) -> (NodeId, bool) {
        let mut node = root;
        let Some(mut rest) = path.strip_prefix('/') else {
            return (node, false);
        };
        loop {
            let (segment, below) = match memchr::memchr(b'/', rest.as_bytes()) {
                Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
                None => (rest, None),
            };
            match (self.nodes[node as usize].children.get(segment), below) {
                (None, _) => return (node, false),
                (Some(&child), None) => return (child, true),
                (Some(&child), Some(below)) => (node, rest) = (child, below),
            }
        }
    }

    pub(super) fn exact(&self, node: NodeId) -> &[Candidate] {
        &self.nodes[node as usize].exact
    }

    pub(super) fn prefix(&self, node: NodeId) -> &[Candidate] {
        &self.nodes[node as usize].prefix
    }

    /// The next shorter prefix of `node` that has routes.
    pub(super) fn shorter(&self, node: NodeId) -> Option<NodeId> {
        self.nodes[node as usize].shorter
    }
}
