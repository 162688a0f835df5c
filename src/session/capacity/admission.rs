//! Who is let in: by the scarcest of what sessions share.

use super::{
    CapacityMeter, Demand,
    card::{RESERVE, device},
};
use crate::session::{
    Capacity, Refusal,
    status::{Resource, ResourceKind},
};

/// Most sessions that are counted to fit.
const MANY: usize = 200;

/// One thing that sessions share, in units of its own.
struct Need {
    kind: ResourceKind,
    device: String,
    /// What is gone, what one more session asks for, and what there is in all.
    taken: f64,
    asks: f64,
    room: f64,
}

impl Need {
    /// How full it would be.
    fn filled(&self) -> f64 {
        (self.taken + self.asks) / self.room.max(f64::MIN_POSITIVE)
    }
}

impl CapacityMeter {
    /// What one more session needs of each thing that it would share.
    fn needs(&self, demand: &Demand, running: &[Demand]) -> Vec<Need> {
        let others = if self.count_others { self.load.lock().others } else { 0.0 };
        let mut needs = vec![Need {
            kind: ResourceKind::Cores,
            device: "cpu".into(),
            taken: self.taken(running) + others,
            asks: self.cost(demand),
            room: self.cores * self.part,
        }];
        let price = self.prices.lock().get(&demand.engine).cloned();
        let engine = price.as_ref().and_then(|price| price.card.as_ref());
        let enhancer = self.evaluations(demand).and_then(|(price, _)| price.card);
        let mut cards: Vec<u32> = engine.map(|engine| engine.card).into_iter().chain(enhancer.map(|of| of.0)).collect();
        cards.dedup();
        let with: Vec<Demand> = running.iter().chain([demand]).cloned().collect();
        for card in cards {
            let taken = self.card_time(card, running);
            needs.push(Need {
                kind: ResourceKind::GpuTime,
                device: device(card),
                taken,
                // The batches of others grow by it: what it adds is less than what it takes alone.
                asks: self.card_time(card, &with) - taken,
                room: self.part,
            });
            let engine = engine.filter(|engine| engine.card == card).map_or(0, |price| {
                let loaded = running.iter().any(|other| other.engine == demand.engine);
                price.session + if loaded { 0 } else { price.engine }
            });
            let name = |demand: &Demand| demand.enhancer.as_ref().map(|enhancer| enhancer.name.clone());
            let loaded = running.iter().any(|other| name(other) == name(demand));
            let enhancer = enhancer.filter(|(own, _)| *own == card && !loaded).map_or(0, |(_, bytes)| bytes);
            needs.extend((self.gauge)(card).map(|memory| Need {
                kind: ResourceKind::GpuMemory,
                device: device(card),
                taken: (memory.total - memory.free.min(memory.total)) as f64,
                asks: (engine + enhancer) as f64,
                room: memory.total.saturating_sub(RESERVE) as f64,
            }));
        }
        needs
    }

    /// Seconds of a card's time that sessions take a second.
    fn card_time(&self, card: u32, sessions: &[Demand]) -> f64 {
        let (prices, learnt) = (self.prices.lock(), self.learnt.lock());
        let of = |demand: &Demand| {
            let price = prices.get(&demand.engine)?.card.as_ref().filter(|price| price.card == card)?;
            let alike = sessions.iter().filter(|other| other.engine == demand.engine);
            let together = alike.map(|other| other.mouths).sum();
            let most = learnt.get(&demand.engine).map_or(&[][..], |learnt| &learnt.most[..]);
            Some(price.frame(together, demand.steps, most) * demand.fps() * demand.mouths as f64)
        };
        let enhanced = sessions.iter().map(|demand| self.enhancing_on(card, demand)).sum::<f64>();
        sessions.iter().filter_map(of).sum::<f64>() + enhanced + 0.0
    }

    /// Whether a session fits beside those that run; with a warning where it does, but other programs
    /// take what it needs.
    pub fn admit(&self, demand: &Demand, running: &[Demand]) -> Result<Option<String>, Refusal> {
        // Where no price could be measured, a first session tells why.
        if running.is_empty() && self.prices.lock().get(&demand.engine).is_some_and(|price| !price.measured) {
            return Ok(None);
        }
        self.has_memory(demand, running)?;
        let needs = self.needs(demand, running);
        let scarcest = needs.iter().max_by(|a, b| a.filled().total_cmp(&b.filled()));
        if let Some(need) = scarcest.filter(|need| need.filled() > 1.0) {
            return Err(Refusal::Full(self.refusal(need, demand, running)));
        }
        let (cost, taken, others) = (self.cost(demand), self.taken(running), self.load.lock().others);
        if self.count_others || cost + taken + others <= self.cores * self.part {
            return Ok(None);
        }
        Ok(Some(format!(
            "the machine is busy: other programs take {others:.2} of {:.2} cores, and {} sessions may take {:.2}; frames \
             may come late or be dropped (frames_late, frames_dropped): end other programs, or lower sizes or rates",
            self.cores,
            running.len() + 1,
            cost + taken
        )))
    }

    /// Whether a session that asks for `now` may ask for `more` beside the others.
    pub fn grow(&self, now: &Demand, more: &Demand, others: &[Demand]) -> Result<(), Refusal> {
        let before = self.needs(now, others);
        let added = self.needs(more, others).into_iter().filter_map(|mut need| {
            let own = before.iter().find(|own| (own.kind, &own.device) == (need.kind, &need.device));
            let own = own.map_or(0.0, |own| own.asks);
            let grows = need.asks > own;
            // The memory of what runs is taken already.
            need.asks -= if need.kind == ResourceKind::GpuMemory { own } else { 0.0 };
            grows.then_some(need)
        });
        let scarce = added.max_by(|a, b| a.filled().total_cmp(&b.filled())).filter(|need| need.filled() > 1.0);
        scarce.map_or(Ok(()), |need| Err(Refusal::Full(self.refusal(&need, more, others))))
    }

    /// Refuses where as many sessions of the engine have found no memory.
    fn has_memory(&self, demand: &Demand, running: &[Demand]) -> Result<(), Refusal> {
        let most = self.learnt.lock().get(&demand.engine).and_then(|learnt| learnt.sessions);
        let own = running.iter().filter(|other| other.engine == demand.engine).count();
        let Some(most) = most.filter(|most| own >= *most) else { return Ok(()) };
        Err(Refusal::Full(format!(
            "the machine is full: memory ended with {} sessions of engine `{}`, so that {most} are let in until none of it runs; end a \
             session, or take a smaller engine or another device",
            most + 1,
            demand.engine
        )))
    }

    /// Why there is no room, by what is the scarcest.
    fn refusal(&self, need: &Need, demand: &Demand, running: &[Demand]) -> String {
        let (count, Need { device, taken, asks, room, .. }) = (running.len(), need);
        let gigabytes = |bytes: f64| bytes / 1e9;
        match need.kind {
            ResourceKind::Cores => {
                let (taken, others) = (self.taken(running), self.load.lock().others);
                let alone = taken + asks <= *room;
                let cure = if self.count_others && alone { ", or set sessions.count_others = false" } else { "" };
                format!(
                    "the machine is full: {count} sessions take {taken:.2} of {room:.2} cores, other programs {others:.2}, and this one \
                     would take {asks:.2}; end a session, lower its size or rate, or raise sessions.load{cure}"
                )
            }
            ResourceKind::GpuTime => format!(
                "the machine is full: {count} sessions take {taken:.2} of {room:.2} of the time of {device}, and this one would take \
                 {asks:.2}; end a session, take fewer steps, a lower rate or a smaller engine, or raise sessions.load"
            ),
            ResourceKind::GpuMemory => format!(
                "the machine is full: {:.1} of {:.1} GB of the memory of {device} are taken, and this one of engine `{}` would take \
                 {:.1}; end a session or another program, or take a smaller engine or another device",
                gigabytes(*taken),
                gigabytes(*room),
                demand.engine,
                gigabytes(*asks)
            ),
        }
    }

    /// How much room is left beside what runs, in sessions of `engine` with the standard picture.
    pub fn report(&self, running: &[Demand], engine: &str) -> Capacity {
        let standard = Demand::standard(engine);
        let cost = self.cost(&standard);
        let own = self.load.lock().own;
        let needs = self.needs(&standard, running);
        let scarcest = needs.iter().max_by(|a, b| a.filled().total_cmp(&b.filled()));
        let resource = |need: &Need| Resource {
            kind: need.kind,
            device: need.device.clone(),
            used: need.taken,
            room: need.room,
            per_session: need.asks,
        };
        Capacity {
            sessions: running.len(),
            cores: self.cores,
            cores_used: own,
            cores_per_session: cost,
            sessions_left: self.left(&standard, running, &needs),
            scarcest: scarcest.map_or(ResourceKind::Cores, |need| need.kind),
            resources: needs.iter().map(resource).collect(),
            full: self.admit(&standard, running).err().map(|refusal| refusal.to_string()),
        }
    }

    /// How many more sessions fit, by the scarcest.
    fn left(&self, demand: &Demand, running: &[Demand], needs: &[Need]) -> usize {
        let of = |need: &Need| match need.kind {
            // Batches grow with each session: one after another.
            ResourceKind::GpuTime => {
                let (card, mut all, mut count) = (self.card_of(&demand.engine), running.to_vec(), 0);
                while count < MANY {
                    all.push(demand.clone());
                    if card.is_none_or(|card| self.card_time(card, &all) > need.room) {
                        break;
                    }
                    count += 1;
                }
                count
            }
            ResourceKind::Cores => ((need.room - need.taken) / need.asks).max(0.0) as usize,
            ResourceKind::GpuMemory => {
                let each = self.card_session(&demand.engine) as f64;
                match need.room - need.taken - need.asks {
                    rest if rest < 0.0 => 0,
                    rest => 1 + (rest / each.max(1.0)).min(MANY as f64) as usize,
                }
            }
        };
        let by_memory = {
            let own = running.iter().filter(|other| other.engine == demand.engine).count();
            let most = self.learnt.lock().get(&demand.engine).and_then(|learnt| learnt.sessions);
            most.map_or(usize::MAX, |most| most.saturating_sub(own))
        };
        needs.iter().map(of).min().unwrap_or(0).min(by_memory)
    }

    /// The card that runs an engine, by CUDA's number, where its price is known.
    pub fn card_of(&self, engine: &str) -> Option<u32> {
        self.prices.lock().get(engine)?.card.as_ref().map(|card| card.card)
    }

    fn card_session(&self, engine: &str) -> u64 {
        self.prices.lock().get(engine).and_then(|price| price.card.as_ref()).map_or(0, |card| card.session)
    }
}
