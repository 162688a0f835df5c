//! Reads the dot text that GStreamer writes (`gstdebugutils.c`): elements are nested clusters, pads are their nodes.

use std::collections::{BTreeSet, HashMap};

/// Elements that hold no others, and the links between them.
#[derive(Debug, Default)]
pub struct Drawing {
    pub elements: Vec<Element>,
    pub links: Vec<Link>,
}

#[derive(Debug, Default)]
pub struct Element {
    /// Its type, `GstQueue`.
    pub kind: String,
    pub name: String,
    /// Properties that are not at their default.
    pub properties: Vec<String>,
}

#[derive(Debug)]
pub struct Link {
    pub from: usize,
    pub to: usize,
    /// What flows: media type and format.
    pub caps: String,
}

/// A cluster of the text.
#[derive(Default)]
struct Cluster {
    label: String,
    /// Nearest cluster around it that is an element.
    element: Option<usize>,
    is_bin: bool,
}

impl Drawing {
    pub fn parse(dot: &str) -> Self {
        let mut clusters: Vec<Cluster> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut pads: HashMap<&str, usize> = HashMap::new();
        let mut edges: Vec<(&str, &str, String)> = Vec::new();
        for line in dot.lines().map(str::trim) {
            if line.starts_with("subgraph ") {
                let element = open.iter().rev().copied().find(|n| !clusters[*n].label.is_empty());
                clusters.push(Cluster { element, ..Cluster::default() });
                open.push(clusters.len() - 1);
            } else if line == "}" {
                open.pop();
            } else if let Some(label) = line.strip_prefix("label=") {
                // The first line of the text has one too, outside of all clusters.
                if let Some(&n) = open.last() {
                    clusters[n].label = unquote(label);
                    if let (false, Some(parent)) = (clusters[n].label.is_empty(), clusters[n].element) {
                        clusters[parent].is_bin = true;
                    }
                }
            } else if let Some((from, rest)) = line.split_once(" -> ") {
                let (to, attributes) = rest.split_once(' ').unwrap_or((rest, ""));
                if !attributes.contains("style=\"invis\"") {
                    edges.push((from, to, caps(attributes)));
                }
            } else if let (Some((name, _)), Some(&n)) = (line.split_once(" ["), open.last()) {
                let own = Some(n).filter(|n| !clusters[*n].label.is_empty()).or(clusters[n].element);
                pads.extend(own.map(|element| (name, element)));
            }
        }
        connect(&clusters, &pads, &edges)
    }
}

/// Links of the pads of bins are followed to the elements within.
fn connect(clusters: &[Cluster], pads: &HashMap<&str, usize>, edges: &[(&str, &str, String)]) -> Drawing {
    let mut drawing = Drawing::default();
    let mut numbers = HashMap::new();
    for (n, cluster) in clusters.iter().enumerate().filter(|(_, c)| !c.label.is_empty() && !c.is_bin) {
        numbers.insert(n, drawing.elements.len());
        drawing.elements.push(element(&cluster.label));
    }
    let number = |pad: &str| pads.get(pad).and_then(|cluster| numbers.get(cluster)).copied();
    let mut next: HashMap<&str, Vec<&str>> = HashMap::new();
    for (from, to, _) in edges {
        next.entry(from).or_default().push(to);
    }
    for (from, to, caps) in edges {
        let Some(start) = number(from) else { continue };
        let mut seen = BTreeSet::new();
        let mut ahead = vec![*to];
        while let Some(pad) = ahead.pop() {
            if !seen.insert(pad) {
                continue;
            }
            match number(pad) {
                Some(end) => drawing.links.push(Link { from: start, to: end, caps: caps.clone() }),
                None => ahead.extend(next.get(pad).into_iter().flatten()),
            }
        }
    }
    drawing
}

fn element(label: &str) -> Element {
    let mut lines = label.split('\n').map(str::to_owned);
    let (kind, name) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    // The third line is the state.
    Element { kind, name, properties: lines.skip(1).collect() }
}

/// The media type and the fields that tell most, of the label of an edge.
fn caps(attributes: &str) -> String {
    let Some((_, label)) = attributes.split_once("label=") else { return String::new() };
    let label = unquote(label);
    let mut lines = label.split('\n').map(str::trim);
    let kind = lines.next().unwrap_or_default();
    let fields: HashMap<&str, &str> = lines.filter_map(|line| line.split_once(": ")).collect();
    let field = |name: &str| fields.get(name).map(|v| v.trim().to_owned());
    let size = field("width").zip(field("height")).map(|(width, height)| format!("{width}×{height}"));
    let parts = [field("format"), size, field("rate")];
    let short = kind.strip_suffix("/x-raw").unwrap_or(kind);
    std::iter::once(short.to_owned()).chain(parts.into_iter().flatten()).collect::<Vec<_>>().join(" ")
}

/// A quoted string of dot; `\n` and `\l` end lines.
fn unquote(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.strip_prefix('"').unwrap_or(text).chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n' | 'l') => out.push('\n'),
                Some(other) => out.push(other),
                None => break,
            },
            c => out.push(c),
        }
    }
    out
}
