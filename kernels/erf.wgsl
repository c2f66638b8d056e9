// erf, for activation and what gates: the source of Numbers comes before it, theirs follows.
// Rational form of erf on [-4, 4], a few ULP (the one XLA and Eigen use).
fn erf(v: Numbers) -> Numbers {
  let c = clamp(v, Numbers(-4.0), Numbers(4.0));
  let s = c * c;
  var a = Numbers(-2.72614225801306e-10);
  a = a * s + 2.77068142495902e-08;
  a = a * s - 2.10102402082508e-06;
  a = a * s - 5.69250639462346e-05;
  a = a * s - 7.34990630326855e-04;
  a = a * s - 2.95459980854025e-03;
  a = a * s - 1.60960333262415e-02;
  var b = Numbers(-1.45660718464996e-05);
  b = b * s - 2.13374055278905e-04;
  b = b * s - 1.68282697438203e-03;
  b = b * s - 7.37332916720468e-03;
  b = b * s - 1.42647390514189e-02;
  return c * a / b;
}

// Share of a number that gelu keeps of it.
fn phi(v: Numbers) -> Numbers { return 0.5 * (1.0 + erf(v * 0.7071067811865476)); }

// How fast gelu rises there; share = phi(v).
fn geluSlope(v: Numbers, share: Numbers) -> Numbers {
  return share + v * 0.3989422804014327 * exp(-0.5 * min(v * v, Numbers(160.0)));
}
