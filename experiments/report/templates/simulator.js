// The simulator: surfaces evaluated where the sliders stand. Every formula is that of experiments/surface.py,
// prediction.py and hull.py, and a test in a browser holds the two together to 1e-6.
(() => {
  "use strict";

  const data = JSON.parse(document.getElementById("simulator-data").textContent);
  const POINTS = 81; // of a curve

  // --- surfaces --------------------------------------------------------------------------------------------------

  const named = (slice, row) => Object.fromEntries(slice.names.map((name, i) => [name, row[i]]));
  for (const slice of data.slices) {
    slice.fit = named(slice, slice.fit);
    slice.refits = slice.refits.map((group) => group.map((row) => named(slice, row)));
  }

  /** [a, b] of the loss a + b n^-alpha at one share of noise. */
  function parts(form, v, eta) {
    if (form === "effective") return [v.floor, v.A * Math.max(1 - eta, data.unique) ** (-v.alpha * v.gamma)];
    if (form === "product") return [v.floor, v.A * (eta + v.eta0) ** v.beta];
    const noise = eta ** v.beta;
    return [v.floor + v.B * noise, v.A + (v.C ?? 0) * noise];
  }

  const unique = (v, d) => Math.max(1 - d, data.unique) ** (v.delta ?? 0);

  function loss(form, v, [n, eta, d]) {
    const [least, rest] = parts(form, v, (v.kappa ?? 1) * eta);
    return Math.exp(v.shift ?? 0) * (least + rest * (n * unique(v, d)) ** -v.alpha);
  }

  /** Rows with noise share `other` that are as good as the point; NaN if no number is. */
  function equalSize(form, v, [n, eta, d], other) {
    const [least, rest] = parts(form, v, (v.kappa ?? 1) * other);
    const above = loss(form, v, [n, eta, d]) / Math.exp(v.shift ?? 0) - least;
    if (!(above > 0 && rest > 0)) return NaN;
    const logRows = Math.log(rest / above) / v.alpha;
    return logRows > -20 && logRows < 60 ? Math.exp(logRows) / unique(v, d) : NaN;
  }

  const exchange = (form, v, [n, eta, d]) => (equalSize(form, v, [n, eta, d], 0) - n * (1 - eta)) / (n * eta);

  /** The variance of what follows from a fit, by its refits without one cell each. */
  function variance(slice, statistic) {
    let total = 0;
    for (const group of slice.refits) {
      const values = group.map(statistic);
      const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
      total += ((values.length - 1) / values.length) * values.reduce((sum, x) => sum + (x - mean) ** 2, 0);
    }
    return total;
  }

  function bands(slice, point) {
    const middle = loss(slice.form, slice.fit, point);
    const error = variance(slice, (v) => Math.log(loss(slice.form, v, point))) + slice.cell;
    const mean = slice.t * Math.sqrt(error);
    const run = slice.fresh === null ? NaN : Math.sqrt(slice.t ** 2 * error + slice.fresh);
    return {
      middle, low: middle * Math.exp(-mean), high: middle * Math.exp(mean),
      runLow: middle * Math.exp(-run), runHigh: middle * Math.exp(run),
    };
  }

  // --- where there are measurements ------------------------------------------------------------------------------

  const coordinates = ([n, eta, d]) => [Math.log(n), eta, d];

  /** For each half-space [how far inside the point is, how fast that falls along one axis]. */
  function distances({ origin, scale, normals, offsets }, point, axis) {
    const x = coordinates(point).map((value, i) => (value - origin[i]) / scale[i]);
    return normals.map((normal, i) => [
      offsets[i] + data.edge - normal.reduce((sum, part, j) => sum + part * x[j], 0), normal[axis] / scale[axis],
    ]);
  }

  const inside = (slice, point) => distances(slice.hull, point, 0).every(([room]) => room >= 0);

  /** The stretch of one axis that lies inside with the point's other coordinates; null if none does. */
  function stretch(slice, point, axis) {
    const at = coordinates(point)[axis];
    let [low, high] = [-Infinity, Infinity];
    for (const [room, slope] of distances(slice.hull, point, axis)) {
      if (Math.abs(slope) < 1e-12) {
        if (room < 0) return null;
      } else if (slope > 0) high = Math.min(high, at + room / slope);
      else low = Math.max(low, at + room / slope);
    }
    if (low > high) return null;
    if (axis > 0) return [Math.max(low, 0), Math.min(high, 1)];
    return [Math.exp(low), Math.exp(high)];
  }

  function along(point, axis, value) {
    const moved = [...point];
    moved[axis] = value;
    return moved;
  }

  function places([low, high], axis) {
    const at = (i) => low + ((high - low) * i) / (POINTS - 1);
    if (axis > 0) return Array.from({ length: POINTS }, (_, i) => at(i));
    return Array.from({ length: POINTS }, (_, i) => low * (high / low) ** (i / (POINTS - 1)));
  }

  // --- words -----------------------------------------------------------------------------------------------------

  const count = (n) => Math.round(n).toLocaleString("en");
  const minus = (text) => text.replace("-", "−");
  const digits = (x) => minus(x === 0 || (Math.abs(x) >= 0.001 && Math.abs(x) < 1e5)
    ? x.toPrecision(3) : x.toExponential(1));
  const share = (x) => String(Math.round(x * 1e4) / 1e4);
  const rounded = (x) => minus((Math.abs(x) < 0.005 ? 0 : x).toFixed(2));
  const AXES = data.copies ? ["rows", "noise", "copies"] : ["rows", "noise"];
  const shown = (axis, value) => (axis === 0 ? count(value) : share(value));

  // --- controls --------------------------------------------------------------------------------------------------

  const by = (id) => document.getElementById(`simulator-${id}`);
  const sliders = AXES.map(by);
  const menus = [...document.querySelectorAll("#simulator-section select")];

  /** The point that the sliders stand at; sizes as near a measured one as a step are that one. */
  function standing() {
    const [rows, eta, d] = sliders.map((slider) => Number(slider.value));
    const n = data.start.smallest * 2 ** (rows / data.start.steps);
    const near = data.start.sizes.find((size) => Math.abs(Math.log2(size / n)) * data.start.steps < 0.5);
    return [near ?? Math.round(n), eta, d ?? 0];
  }

  function chosen() {
    return data.slices.find((slice) => menus.every((menu, i) => slice.choice[i] === menu.selectedIndex));
  }

  function moveTo([n, eta, d]) {
    const values = [Math.round(Math.log2(n / data.start.smallest) * data.start.steps), eta, d];
    sliders.forEach((slider, axis) => { slider.value = values[axis]; });
  }

  // --- figures ---------------------------------------------------------------------------------------------------

  const models = {};
  const source = (name, columns) => { if (models[name]) models[name].data = columns; };

  function drawCurve(slice, point, axis) {
    const name = AXES[axis];
    const columns = { x: [], middle: [], low: [], high: [], runLow: [], runHigh: [] };
    const ends = slice && stretch(slice, point, axis);
    for (const x of ends ? places(ends, axis) : []) {
      columns.x.push(x);
      for (const [key, value] of Object.entries(bands(slice, along(point, axis, x)))) columns[key].push(value);
    }
    if (slice && slice.fresh === null) { columns.runLow = columns.low; columns.runHigh = columns.high; }
    source(`${name}.curve`, columns);
    // measured at the same levels of the other axes: filled; all others faint
    const cells = slice ? slice.cells : [];
    const same = (cell) => cell.slice(0, 3).every((x, i) => i === axis || Math.abs(x - nearest(slice, point, i)) < 1e-9);
    source(`${name}.cells`, {
      x: cells.map((cell) => cell[axis]), y: cells.map((cell) => cell[3]), alpha: cells.map((c) => (same(c) ? 1 : 0.18)),
      rows: cells.map((c) => c[0]), noise: cells.map((c) => c[1]), copies: cells.map((c) => c[2]),
    });
    source(`${name}.here`, slice && inside(slice, point)
      ? { x: [point[axis]], y: [loss(slice.form, slice.fit, point)] } : { x: [], y: [] });
    return columns;
  }

  /** The measured level of an axis that is nearest to the point. */
  function nearest(slice, point, axis) {
    const far = (x) => Math.abs(coordinates(along(point, axis, x))[axis] - coordinates(point)[axis]);
    return slice.cells.map((cell) => cell[axis]).reduce((best, x) => (far(x) < far(best) ? x : best));
  }

  function drawIso(slice, point) {
    const region = { x: [], low: [], high: [] };
    const curve = { x: [], y: [], low: [], high: [] };
    const ok = slice && inside(slice, point);
    for (const eta of slice ? places([0, 1], 1) : []) {
      const ends = stretch(slice, along(point, 1, eta), 0);
      if (!ends) continue;
      region.x.push(eta); region.low.push(ends[0]); region.high.push(ends[1]);
    }
    const ends = region.x.length ? [region.x[0], region.x[region.x.length - 1]] : null;
    for (const eta of ok && ends && ends[1] > ends[0] ? places(ends, 1) : []) {
      const n = equalSize(slice.form, slice.fit, point, eta);
      if (!(n > 0) || !inside(slice, [n, eta, point[2]])) continue;
      const error = variance(slice, (v) => Math.log(equalSize(slice.form, v, point, eta)));
      const half = slice.t * Math.sqrt(error);
      curve.x.push(eta); curve.y.push(n);
      curve.low.push(n * Math.exp(-half)); curve.high.push(n * Math.exp(half));
    }
    source("iso.region", region);
    source("iso.curve", curve);
    const cells = slice ? slice.cells.filter((cell) => Math.abs(cell[2] - nearest(slice, point, 2)) < 1e-9) : [];
    source("iso.cells", { x: cells.map((c) => c[1]), y: cells.map((c) => c[0]), loss: cells.map((c) => c[3]) });
    source("iso.here", ok ? { x: [point[1]], y: [point[0]] } : { x: [], y: [] });
    return curve;
  }

  const FIGURES = ["loss", "low", "high", "runLow", "runHigh", "leftOut", "exchange", "exchangeLow", "exchangeHigh"];

  // --- what is said ----------------------------------------------------------------------------------------------

  const say = (id, text) => { by(id).textContent = text; };
  /** A figure in full, as an attribute of the section: for whoever reads the page by program. */
  function number(name, value) {
    if (Number.isFinite(value)) by("section").dataset[name] = value;
    else delete by("section").dataset[name];
  }

  function sayLoss(slice, point) {
    const b = bands(slice, point);
    say("loss", digits(b.middle));
    say("mean", `${digits(b.low)} to ${digits(b.high)}`);
    say("run", slice.fresh === null
      ? "unknown: one pair ran" : `${digits(b.runLow)} to ${digits(b.runHigh)}`);
    const pairs = slice.pairs > 1 ? `these ${slice.pairs} pairs` : "this one pair";
    say("whose", `mean of ${slice.bases > 1 ? `these ${slice.bases} base models` : pairs}`);
    say("fresh", slice.bases > 1 ? "one run of another base model" : "one more run");
    for (const [key, value] of Object.entries(b)) number(key === "middle" ? "loss" : key, value);
    number("leftOut", slice.leftOut);
    say("left-out", `${(100 * (Math.exp(slice.leftOut) - 1)).toPrecision(2)} %`);
    return b;
  }

  function sayExchange(slice, point) {
    const [n, eta, d] = point;
    const clean = eta > 0 ? equalSize(slice.form, slice.fit, point, 0) : NaN;
    const value = exchange(slice.form, slice.fit, point);
    const known = eta > 0 && Number.isFinite(clean) && inside(slice, [clean, 0, d]);
    const half = known ? slice.t * Math.sqrt(variance(slice, (v) => exchange(slice.form, v, point))) : NaN;
    number("exchange", known ? value : NaN);
    number("exchangeLow", value - half);
    number("exchangeHigh", value + half);
    by("exchange").classList.toggle("absent", !known);
    if (eta === 0) {
      say("exchange", "–");
      say("exchange-band", "there are no noisy rows here");
    } else if (!Number.isFinite(clean)) {
      say("exchange", "–");
      say("exchange-band", "no number of clean rows is as good");
    } else if (!known) {
      say("exchange", "–");
      say("exchange-band", `no figure: as good as ${clean < n ? "fewer" : "more"} clean rows than were measured`);
    } else {
      const band = Number.isFinite(half) ? `${rounded(value - half)} to ${rounded(value + half)}; ` : "";
      say("exchange", rounded(value));
      const dropped = value < 0 ? "noisy rows had better be left out: " : "";
      say("exchange-band", `${band}${dropped}this set is as good as ${count(clean)} clean rows`);
    }
  }

  function sayOutside(slice, point) {
    for (const id of ["loss", "exchange"]) say(id, "–");
    for (const id of ["mean", "run", "exchange-band", "left-out"]) say(id, "");
    for (const name of FIGURES) number(name, NaN);
    if (!slice) return "These two were not measured together: no figure.";
    const hints = AXES.map((name, axis) => {
      const ends = stretch(slice, point, axis);
      if (!ends) return "";
      const [low, high] = ends.map((end) => shown(axis, end));
      return low === high ? `${name} ${low}` : `${name} from ${low} to ${high}`;
    }).filter(Boolean);
    return `Outside of what was measured: no figure.${hints.length ? ` Measured here: ${hints.join("; or ")}.` : ""}`;
  }

  // --- all together ----------------------------------------------------------------------------------------------

  function update() {
    const point = standing();
    const slice = chosen();
    AXES.forEach((name, axis) => {
      const text = shown(axis, point[axis]);
      say(`${name}-value`, text);
      number(name, point[axis]);
      sliders[axis].setAttribute("aria-valuetext", axis === 0 ? `${text} rows` : text);
    });
    const ok = Boolean(slice) && inside(slice, point);
    by("section").classList.toggle("outside", !ok);
    by("section").dataset.inside = ok;
    let said;
    if (ok) {
      const b = sayLoss(slice, point);
      sayExchange(slice, point);
      said = `${data.metric} ${digits(b.middle)}, ${digits(b.low)} to ${digits(b.high)}`;
      say("where", "");
    } else {
      said = sayOutside(slice, point);
      say("where", said);
    }
    const at = AXES.map((name, axis) => `${name} ${shown(axis, point[axis])}`);
    AXES.forEach((name, axis) => {
      const { x, middle } = drawCurve(slice, point, axis);
      const curve = x.length
        ? `The curve goes from ${digits(middle[0])} at ${shown(axis, x[0])} to ${digits(middle[x.length - 1])} at ${shown(axis, x[x.length - 1])}.`
        : "Nothing was measured along this line.";
      by(`figure-${name}`).setAttribute("aria-label", `${data.metric} over ${name}. ${curve} At ${at.join(", ")}: ${said}`);
    });
    const iso = drawIso(slice, point);
    const last = iso.x.length - 1;
    by("figure-iso").setAttribute("aria-label", last < 1 ? "Rows over noise: no curve here." : `Rows over noise at one and the same loss: ${count(iso.y[0])} rows at noise ${share(iso.x[0])}, ${count(iso.y[last])} at ${share(iso.x[last])}.`);
    document.querySelectorAll("[data-simulator-slice]").forEach((part) => {
      part.hidden = !slice || part.dataset.simulatorSlice !== String(data.slices.indexOf(slice));
    });
  }

  /** Another surface was chosen: stand where it was measured. */
  function choose() {
    const slice = chosen();
    if (slice && !inside(slice, standing())) moveTo(slice.start);
    update();
  }

  /** The colours of the scheme: what Bokeh draws on a canvas knows no CSS. */
  function paint() {
    const style = getComputedStyle(by("section"));
    for (const model of Object.values(models)) {
      for (const [property, variable] of model.tags) model[property] = style.getPropertyValue(variable).trim();
    }
  }

  sliders.forEach((slider) => slider.addEventListener("input", update));
  menus.forEach((menu) => menu.addEventListener("change", choose));
  moveTo(data.slices[0].start);
  menus.forEach((menu, i) => { menu.selectedIndex = data.slices[0].choice[i]; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  Promise.all(data.figures.map((item) => Bokeh.embed.embed_item(item))).then(() => {
    for (const name of data.models) {
      models[name] = Bokeh.documents.map((figure) => figure.get_model_by_name(name)).find((model) => model !== null);
    }
    paint();
    update();
    by("section").dataset.ready = true;
  });
  update();
})();
