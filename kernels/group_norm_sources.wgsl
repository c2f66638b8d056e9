// What all kernels of a group norm have in common that read a tensor x and, BESIDE, another one whose channels follow:
// where a group lies in both. Their source follows, with what reads x written out for either; see `bothSources`.
override BESIDE: bool = false;

fn channelsOf() -> u32 { return p.count / p.cells; }

fn firstChannel(group: u32) -> u32 { return group % p.groups * channelsOf(); }

// Of a group's channels, how many are those of x: they come first.
fn ownChannels(group: u32) -> u32 {
  if (!BESIDE) { return channelsOf(); }
  let first = firstChannel(group);
  return min(max(p.own, first) - first, channelsOf());
}

// The plane of a group's first channel in either tensor; in `beside` as if those before it were there, too: what is
// added to it wraps around.
fn planeOwn(group: u32) -> u32 { return group / p.groups * p.own + firstChannel(group); }

fn planeBeside(group: u32) -> u32 {
  return group / p.groups * (p.groups * channelsOf() - p.own) + firstChannel(group) - p.own;
}
