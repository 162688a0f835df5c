//! Places the nodes of a directed graph in columns along its edges, after Sugiyama, Tagawa and Toda 1981: longest path
//! for the columns, mean of the neighbours for the order within one.

/// The places that a link passes, from its start to its end, as column and row.
pub type Route = Vec<(usize, f64)>;

#[derive(Debug, Default)]
pub struct Layout {
    /// Column and row of each node.
    pub places: Vec<(usize, f64)>,
    pub routes: Vec<Route>,
    pub columns: usize,
    pub rows: usize,
}

/// Passes over the columns that order them; more change nothing that one sees.
const SWEEPS: usize = 8;

impl Layout {
    pub fn new(nodes: usize, links: &[(usize, usize)]) -> Self {
        let mut column = columns(nodes, links);
        // A link over several columns gets a node in each of those between, so that nothing is drawn over it.
        let mut chains: Vec<Vec<usize>> = Vec::new();
        for &(from, to) in links {
            let mut chain = vec![from];
            for between in column[from] + 1..column[to] {
                chain.push(column.len());
                column.push(between);
            }
            chain.push(to);
            chains.push(chain);
        }
        let count = column.iter().max().map_or(0, |last| last + 1);
        let mut orders: Vec<Vec<usize>> = vec![Vec::new(); count];
        column.iter().enumerate().for_each(|(node, c)| orders[*c].push(node));
        let mut neighbours: Vec<Vec<usize>> = vec![Vec::new(); column.len()];
        for pair in chains.iter().flat_map(|chain| chain.windows(2)) {
            neighbours[pair[0]].push(pair[1]);
            neighbours[pair[1]].push(pair[0]);
        }
        let rows = orders.iter().map(Vec::len).max().unwrap_or(0);
        let row = order(&mut orders, &neighbours, &column, rows);
        let place = |node: usize| (column[node], row[node]);
        Self {
            places: (0..nodes).map(place).collect(),
            routes: chains.iter().map(|chain| chain.iter().map(|node| place(*node)).collect()).collect(),
            columns: count,
            rows,
        }
    }
}

/// The longest way to each node. Links that close a circle may point backwards.
fn columns(nodes: usize, links: &[(usize, usize)]) -> Vec<usize> {
    let mut column = vec![0; nodes];
    for _ in 0..nodes {
        let mut moved = false;
        for &(from, to) in links {
            if from != to && column[to] < column[from] + 1 && column[from] + 1 < nodes {
                column[to] = column[from] + 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    column
}

/// The row of each node.
fn order(orders: &mut [Vec<usize>], neighbours: &[Vec<usize>], column: &[usize], rows: usize) -> Vec<f64> {
    let mut row = vec![0.0; column.len()];
    let place = |order: &[usize], row: &mut Vec<f64>| {
        let first = (rows - order.len()) as f64 / 2.0;
        order.iter().enumerate().for_each(|(n, node)| row[*node] = first + n as f64);
    };
    orders.iter().for_each(|order| place(order, &mut row));
    for sweep in 0..SWEEPS {
        let forward = sweep % 2 == 0;
        let turns: Vec<usize> = if forward { (0..orders.len()).collect() } else { (0..orders.len()).rev().collect() };
        for turn in turns {
            let mean = |node: usize| {
                let near = neighbours[node].iter().filter(|other| (column[**other] < column[node]) == forward);
                let (sum, count) = near.fold((0.0, 0), |(sum, count), other| (sum + row[*other], count + 1));
                if count == 0 { row[node] } else { sum / f64::from(count) }
            };
            let mut keyed: Vec<(f64, usize)> = orders[turn].iter().map(|node| (mean(*node), *node)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            orders[turn] = keyed.into_iter().map(|(_, node)| node).collect();
            place(&orders[turn], &mut row);
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_point_forward_and_no_two_nodes_share_a_place() {
        let links = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (0, 4)];
        let layout = Layout::new(5, &links);
        for (from, to) in links {
            assert!(layout.places[from].0 < layout.places[to].0);
        }
        let mut places = layout.places.clone();
        places.dedup();
        assert_eq!(places.len(), 5);
        assert_eq!(layout.routes[5].len(), 4, "the long link passes the columns between");
    }

    #[test]
    fn a_circle_is_laid_out_too() {
        let layout = Layout::new(3, &[(0, 1), (1, 2), (2, 0), (1, 1)]);
        assert!(layout.columns <= 3 && layout.places.len() == 3);
    }
}
