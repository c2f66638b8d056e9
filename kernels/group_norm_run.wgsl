// Numbers from `first` on, each `step` after the one before; those of x lie `further`.
fn applyOwn(n: Plane, first: u32, end: u32, step: u32, further: u32) {
  var i = first;
  // Four at a time: their loads do not wait for each other.
  for (; i + 3u * step < end; i += 4u * step) {
    var slope = vec4f();
    if (GRAD) { slope = vec4f(g[i], g[i + step], g[i + 2u * step], g[i + 3u * step]); }
    let j = i + further;
    let y = four(vec4f(x[j], x[j + step], x[j + 2u * step], x[j + 3u * step]), slope, n);
    out[i] = y.x;
    out[i + step] = y.y;
    out[i + 2u * step] = y.z;
    out[i + 3u * step] = y.w;
  }
  for (; i < end; i += step) {
    var slope = 0.0;
    if (GRAD) { slope = g[i]; }
    out[i] = four(vec4f(x[i + further]), vec4f(slope), n).x;
  }
}
