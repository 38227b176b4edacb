// Where names of points are written in a plot: beside them, or further off with a line to the point; never on each other.

const LABEL = { size: 12, high: 17, room: 8 }; // pixels; `room` is from the middle of a point to its name
const RINGS = [0, 10, 22, 36, 52, 70, 90, 112, 136, 162, 190, 220, 250]; // how far off a name may be, beyond `room`
const SIDES = 24; // directions that are tried
const ROUNDS = 6;

/** How wide a text is; bold, as the widest that it can be. */
function textWidth(text) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `bold ${LABEL.size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}

/** The text, or its beginning, such that it is no wider than that. */
function fitted(text, most) {
  const letters = [...text];
  if (textWidth(text) <= most) return text;
  while (letters.length > 1 && textWidth(`${letters.join("")}…`) > most) letters.pop();
  return `${letters.join("")}…`;
}

function common(a, b) {
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const high = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return wide > 0 && high > 0 ? wide * high : 0;
}

/** Whether the straight line from (x, y) to the middle of `box` goes through `other`. */
function crosses(x, y, box, other) {
  const [right, down] = [(box[0] + box[2]) / 2 - x, (box[1] + box[3]) / 2 - y];
  return [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9].some((step) => {
    const [over, under] = [x + step * right, y + step * down];
    return over > other[0] && over < other[2] && under > other[1] && under < other[3];
  });
}

/** The places that a name of that width can have about (x, y): the middle, the box around it, how far off. */
function places(x, y, wide) {
  const found = [];
  for (const ring of RINGS) {
    for (let turn = 0; turn < SIDES; turn += 1) {
      const angle = (2 * Math.PI * turn) / SIDES;
      const [right, down] = [Math.cos(angle), Math.sin(angle)];
      // its nearest corner, or the middle of its nearest side, is that far off to a side or up or down
      const side = (share) => Math.max(-1, Math.min(1, 2 * share));
      const off = (ring + LABEL.room) / Math.max(Math.abs(right), Math.abs(down));
      const middle = x + right * off + side(right) * (wide / 2);
      const centre = y + down * off + side(down) * (LABEL.high / 2);
      const box = [middle - wide / 2, centre - LABEL.high / 2, middle + wide / 2, centre + LABEL.high / 2];
      found.push({ right: middle - x, down: centre - y, box, ring });
    }
  }
  return found;
}

/**
 * Where to write the names of points {text, x, y} in a field of that size, in pixels: {right, down, far} of each.
 * `lines` are boxes that a name should rather not cover. Names keep clear of names and points as long as there is room.
 */
function labelPlaces(points, width, height, lines) {
  const around = ({ x, y }, half) => [x - half, y - half, x + half, y + half];
  const marks = points.map((point) => around(point, LABEL.room));
  const options = points.map(({ text, x, y }) => places(x, y, textWidth(text) + 4));
  const chosen = points.map(() => null);
  const cost = (own, { box, ring }) => {
    const { x, y } = points[own];
    const [wide, high] = [box[2] - box[0], box[3] - box[1]];
    let sum = ring + 100 * (wide * high - common(box, [0, 0, width, height]));
    const others = marks.map((mark, index) => (index === own ? around(points[own], LABEL.room - 1) : mark));
    for (const other of others) sum += 20 * common(box, other) + (ring > 0 && crosses(x, y, box, other) ? 60 : 0);
    chosen.forEach((place, index) => {
      if (!place || index === own) return;
      const [ours, theirs] = [ring > 0 && crosses(x, y, box, place.box), place.ring > 0];
      const through = theirs && crosses(points[index].x, points[index].y, place.box, box);
      sum += 20 * common(box, place.box) + (ours ? 60 : 0) + (through ? 60 : 0);
    });
    for (const line of lines) sum += common(box, line) > 0 ? 6 : 0;
    return sum;
  };
  for (let round = 0; round < ROUNDS; round += 1) {
    points.forEach((_, own) => {
      const costs = options[own].map((place) => cost(own, place));
      chosen[own] = options[own][costs.indexOf(Math.min(...costs))];
    });
  }
  return chosen.map(({ right, down, ring }) => ({ right, down, far: ring > 0 }));
}
