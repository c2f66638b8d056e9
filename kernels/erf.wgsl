// erf, for activation and what gates: their source follows.
// Rational form of erf on [-4, 4], a few ULP (the one XLA and Eigen use).
fn erf(v: f32) -> f32 {
  let c = clamp(v, -4.0, 4.0);
  let s = c * c;
  var a = -2.72614225801306e-10;
  a = a * s + 2.77068142495902e-08;
  a = a * s - 2.10102402082508e-06;
  a = a * s - 5.69250639462346e-05;
  a = a * s - 7.34990630326855e-04;
  a = a * s - 2.95459980854025e-03;
  a = a * s - 1.60960333262415e-02;
  var b = -1.45660718464996e-05;
  b = b * s - 2.13374055278905e-04;
  b = b * s - 1.68282697438203e-03;
  b = b * s - 7.37332916720468e-03;
  b = b * s - 1.42647390514189e-02;
  return c * a / b;
}

// Share of a number that gelu keeps of it.
fn phi(v: f32) -> f32 { return 0.5 * (1.0 + erf(v * 0.7071067811865476)); }
