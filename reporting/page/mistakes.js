// The mistakes of a cell that are worth a look, as pictures: its worst errors, and likely label errors.

const SIDE = 112; // pixels: the longer side of a picture

function mistakes(errors, classes) {
  if (!errors || !/^data:image\/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+$/.test(errors.sprite)) return [];
  return [...worstErrors(errors, classes), ...labelErrors(errors, classes)];
}

/** The picture at a place of those that stand in a row, or an empty one where there is none. */
function tile({ sprite, columns, tile: [wide, high] }, place, name) {
  const factor = SIDE / Math.max(wide, high);
  const picture = element("div", { class: "tile", role: "img", "aria-label": name });
  Object.assign(picture.style, { width: `${wide * factor}px`, height: `${Math.min(SIDE, high * factor)}px` });
  if (!present(place)) return picture;
  Object.assign(picture.style, {
    backgroundImage: `url("${sprite}")`,
    backgroundSize: `${columns * wide * factor}px ${high * factor}px`,
    backgroundPosition: `-${place * wide * factor}px 0`,
  });
  return picture;
}

function worstErrors(errors, classes) {
  if (!errors.tiles.length) return [];
  return [
    element("h3", {}, "Worst errors"),
    element(
      "p",
      { class: "note" },
      `Test images that it got wrong with most confidence, seed ${errors.of}: what it said, how surely, and what it ` +
        "is.",
    ),
    element(
      "ol",
      { class: "errors" },
      errors.tiles.map(({ name, predicted, confidence, true: label }, place) =>
        element(
          "li",
          { title: name },
          tile(errors, place, name),
          element("p", {}, element("b", {}, classes[predicted]), ` ${(100 * confidence).toFixed(0)} %`),
          element("p", {}, `is ${classes[label]}`),
        ),
      ),
    ),
  ];
}

/** What confident learning takes for labelled wrongly. */
function labelErrors({ suspects, suspected, ...errors }, classes) {
  if (!suspects?.length) return [];
  const [found, images] = suspected;
  const first = found > suspects.length ? `The first ${suspects.length} of ` : "";
  return [
    element("h3", {}, "Likely label errors"),
    element(
      "p",
      { class: "note" },
      `${first}${count(found, "test image")} of ${images.toLocaleString("en")} whose label is likely wrong, or which ` +
        "are hard: the model is as sure of another class as it is, in the mean, of that class's own images. Look " +
        "before you change a label. Images that it was trained on are not among them, unless there are folds. All: ",
      element("code", {}, "python predict.py RUN --suspects"),
    ),
    element(
      "ol",
      { class: "errors" },
      suspects.map(({ at, name, given, suggested, probabilities: [own, other] }) =>
        element(
          "li",
          { title: name },
          tile(errors, at, name),
          element("p", {}, element("b", {}, classes[suggested]), ` ${(100 * other).toFixed(0)}\u00a0%`),
          element("p", {}, `labelled ${classes[given]}, ${(100 * own).toFixed(0)}\u00a0%`),
          present(at) ? null : element("p", { class: "note" }, name),
        ),
      ),
    ),
  ];
}
