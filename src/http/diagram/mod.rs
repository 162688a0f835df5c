//! A running graph as a picture: GStreamer's dot output drawn as SVG, elements in columns along the flow. No Graphviz
//! is needed.

mod dot;
mod layers;

use std::{collections::BTreeSet, fmt::Write as _};

use self::{
    dot::{Drawing, Element},
    layers::{Layout, Route},
};

/// Sizes in pixels of SVG.
const WIDTH: f64 = 168.0;
const HEIGHT: f64 = 46.0;
const COLUMN: f64 = 300.0;
const ROW: f64 = 74.0;
const MARGIN: f64 = 24.0;
/// Characters of a label that fit.
const LONGEST: usize = 26;

const STYLE: &str = "\
:root{color-scheme:light dark}\
text{font:12px system-ui,sans-serif;fill:#1d2430}\
.name{font-weight:600}.kind,.caps{font-size:10.5px;fill:#5b6676}\
rect{fill:#eef1f5;stroke:#b6c0cd}.lip rect{fill:#dcecff;stroke:#3b7dd8}\
path{fill:none;stroke:#8793a3;stroke-width:1.5}\
@media (prefers-color-scheme:dark){\
text{fill:#e6eaf0}.kind,.caps{fill:#9aa6b6}\
rect{fill:#222a35;stroke:#465263}.lip rect{fill:#18324f;stroke:#5d9ceb}\
path{stroke:#6b788a}}";

/// The drawing of GStreamer's `dot` text.
pub fn svg(dot: &str) -> String {
    let drawing = Drawing::parse(dot);
    let pairs: Vec<(usize, usize)> = drawing.links.iter().map(|link| (link.from, link.to)).collect();
    let layout = Layout::new(drawing.elements.len(), &pairs);
    let (width, height) = (
        2.0 * MARGIN + layout.columns.saturating_sub(1) as f64 * COLUMN + WIDTH,
        2.0 * MARGIN + layout.rows.saturating_sub(1) as f64 * ROW + HEIGHT,
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\"><style>{STYLE}</style>"
    );
    let mut said = BTreeSet::new();
    for (link, route) in drawing.links.iter().zip(&layout.routes) {
        // The branches of a tee carry the same.
        let caps = if said.insert((link.from, &link.caps)) { &link.caps } else { "" };
        draw_link(&mut out, route, caps);
    }
    for (element, place) in drawing.elements.iter().zip(&layout.places) {
        draw_element(&mut out, element, *place);
    }
    out.push_str("</svg>\n");
    out
}

/// Left upper corner of a place, given as column and row.
fn corner((column, row): (usize, f64)) -> (f64, f64) {
    (MARGIN + column as f64 * COLUMN, MARGIN + row * ROW)
}

fn draw_element(out: &mut String, element: &Element, place: (usize, f64)) {
    let (x, y) = corner(place);
    let class =
        if element.kind.starts_with("Lip") || element.kind.starts_with("GstLip") { " class=\"lip\"" } else { "" };
    // Writing to a String does not fail.
    let _ = write!(
        out,
        "<g{class}><title>{} {}{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"7\"/>\
         <text class=\"name\" x=\"{tx}\" y=\"{ty}\">{}</text><text class=\"kind\" x=\"{tx}\" y=\"{ky}\">{}</text></g>",
        escape(&element.kind),
        escape(&element.name),
        element.properties.iter().fold(String::new(), |all, line| all + "&#10;" + &escape(line)),
        escape(&shorten(&element.name)),
        escape(&shorten(&element.kind)),
        tx = x + 10.0,
        ty = y + 19.0,
        ky = y + 35.0,
    );
}

/// A curve through the columns that the link crosses, with the media type where it begins.
fn draw_link(out: &mut String, route: &Route, caps: &str) {
    let points: Vec<(f64, f64)> = route.iter().map(|place| corner(*place)).collect();
    let Some((&(x, y), rest)) = points.split_first() else { return };
    let (mut x, mut y) = (x + WIDTH, y + HEIGHT / 2.0);
    let (start_x, start_y) = (x, y);
    let mut path = format!("M{x} {y}");
    for (n, &(to_x, to_y)) in rest.iter().enumerate() {
        let to_y = to_y + HEIGHT / 2.0;
        let bend = (to_x - x) / 2.0;
        let _ = write!(path, "C{} {y} {} {to_y} {to_x} {to_y}", x + bend, to_x - bend);
        (x, y) = (to_x, to_y);
        if n + 1 < rest.len() {
            x += WIDTH;
            let _ = write!(path, "L{x} {y}");
        }
    }
    let _ = write!(
        out,
        "<path d=\"{path}\"/><text class=\"caps\" x=\"{}\" y=\"{}\">{}</text>",
        start_x + 6.0,
        start_y - 5.0,
        escape(&shorten(caps))
    );
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use gst::prelude::*;

    use super::*;

    fn drawn(launch: &str) -> (Drawing, String) {
        gst::init().expect("GStreamer starts");
        let pipeline = gst::parse::launch(launch).expect("the description is valid");
        let bin = pipeline.downcast::<gst::Bin>().expect("is a bin");
        let dot = bin.debug_to_dot_data(gst::DebugGraphDetails::all());
        (Drawing::parse(&dot), svg(&dot))
    }

    #[test]
    fn every_element_and_link_of_a_graph_is_drawn() {
        let (drawing, svg) = drawn(
            "videotestsrc name=camera ! tee name=t ! queue ! fakesink name=one  t. ! ( queue ! identity ) ! fakesink",
        );
        let names: Vec<&str> = drawing.elements.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names.len(), 7, "{names:?}");
        assert!(names.contains(&"camera") && names.contains(&"one"), "{names:?}");
        // The bin itself is no element: its links are those of what is in it.
        assert_eq!(drawing.links.len(), 6);
        assert_eq!(svg.matches("<rect").count(), 7);
        assert_eq!(svg.matches("<path").count(), 6);
    }

    #[test]
    fn names_are_text_and_not_markup() {
        let (_, svg) = drawn("videotestsrc name=\"<script>&\" ! fakesink");
        assert!(svg.contains("&lt;script&gt;&amp;") && !svg.contains("<script>"), "{svg}");
    }

    #[test]
    fn whatever_is_not_dot_draws_nothing() {
        for text in ["", "}}}}", "subgraph cluster_a {", "a -> b", "\u{0}\"\\"] {
            assert!(svg(text).ends_with("</svg>\n"));
        }
    }
}
