"use strict";
// Lists pictures a page at a time. Every text is set as text, never as markup: names and captions come from anywhere.
(() => {
  const PAGE = 60, GROUPS = 12;
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const size = ([height, width]) => `${height} x ${width}`;
  const percent = (part) => `${(100 * part).toFixed(part < 0.1 ? 1 : 0)}%`;
  const RANK = { error: 0, warning: 1, note: 2 };
  const state = { shown: data.pictures.map((_, index) => index), page: 0, open: null };

  // A picture in a box of at most width x height, with what is cut away covered; size follows from its aspect alone.
  function thumbnail(picture, width, height) {
    if (!picture.thumbnail) return make("span", "nothing", "no picture to show");
    const scale = Math.min(width / picture.size[1], height / picture.size[0]);
    const box = make("span", "thumb");
    box.style.width = `${Math.max(2, Math.round(picture.size[1] * scale))}px`;
    box.style.aspectRatio = `${picture.size[1]} / ${picture.size[0]}`;
    const image = make("img");
    image.alt = picture.name;
    image.decoding = "async";
    image.src = `data:image/webp;base64,${picture.thumbnail}`;
    box.append(image);
    if (picture.cut > 0.001) {
      const [left, top, right, bottom] = picture.kept.map((edge) => 100 * edge);
      const cover = (x, y, x2, y2) => {
        if (x2 - x < 0.05 || y2 - y < 0.05) return;
        const part = make("i");
        Object.assign(part.style, { left: `${x}%`, top: `${y}%`, width: `${x2 - x}%`, height: `${y2 - y}%` });
        box.append(part);
      };
      cover(0, 0, 100, top);
      cover(0, bottom, 100, 100);
      cover(0, top, left, bottom);
      cover(right, top, 100, bottom);
      const kept = make("b");
      Object.assign(kept.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
      box.append(kept);
    }
    return box;
  }

  function framed(picture, width, height) {
    const frame = make("span", "frame");
    frame.append(thumbnail(picture, width, height));
    return frame;
  }

  const severityOf = (picture, kinds) => {
    const found = picture.findings.map((place) => data.findings[place]).filter((finding) => kinds.includes(finding.kind));
    return found.length ? found[0].severity : "";
  };
  const tokensOf = (picture) => Math.max(0, ...picture.tokens);

  function chips(picture) {
    const row = make("span", "chips");
    const add = (text, ...kinds) => row.append(make("span", `chip ${severityOf(picture, kinds)}`, text));
    add(`× ${picture.scale.toFixed(2)}`, "blown_up");
    add(picture.cut > 0.0005 ? `${percent(picture.cut)} cut` : "whole", "cut_away");
    if (picture.tokens.length) add(`${tokensOf(picture)} tokens`, "long_caption");
    if (picture.turn) add("turned", "turned");
    if (picture.alpha) add("alpha", "see_through");
    if (picture.mask || severityOf(picture, ["missing_mask"]))
      add(picture.mask ? "mask" : "no mask", "missing_mask", "mask_keeps_little", "mask_keeps_all");
    if (picture.mode !== "RGB" && picture.mode !== "RGBA") add(picture.mode, "colour_mode");
    for (const [kind, text] of [["same_file", "same file"], ["nearly_same", "nearly the same"], ["blank", "blank"],
      ["unread_caption", "caption not read"], ["changed", "changed"], ["animation", "animation"]]) {
      const severity = severityOf(picture, [kind]);
      if (severity) row.append(make("span", `chip ${severity}`, text));
    }
    return row;
  }

  function caption(picture, className) {
    const node = make("span", className);
    if (!picture.caption) {
      node.append(make("span", "lacking", "no caption"));
    } else if (picture.beyond && picture.caption.endsWith(picture.beyond)) {
      node.append(picture.caption.slice(0, picture.caption.length - picture.beyond.length));
      node.append(make("span", "beyond", picture.beyond));
    } else {
      node.textContent = picture.caption;
    }
    return node;
  }

  function card(index) {
    const picture = data.pictures[index];
    const node = make("button", "card");
    node.type = "button";
    const narrow = window.innerWidth <= 720;
    node.append(framed(picture, narrow ? 150 : 196, narrow ? 124 : 160));
    const about = make("span", "about");
    const name = make("span", "name", picture.name);
    name.title = picture.name;
    about.append(name, make("span", "sizes", `${size(picture.size)} → ${size(picture.bucket)}`));
    about.append(chips(picture), caption(picture, "caption"));
    node.append(about);
    node.addEventListener("click", () => open(index));
    return node;
  }

  // ---- which pictures, in which order ----
  function fillFilter() {
    const filter = byId("filter");
    const option = (value, text, parent) => {
      const node = make("option", "", text);
      node.value = value;
      parent.append(node);
    };
    option("all", `All ${data.pictures.length.toLocaleString("en")} pictures`, filter);
    const group = (label, entries) => {
      if (!entries.length) return;
      const node = make("optgroup");
      node.label = label;
      for (const [value, text] of entries) option(value, text, node);
      filter.append(node);
    };
    const found = data.findings.map((finding, place) => [finding, place, Object.keys(finding.items).length]);
    group("With a finding", found.filter(([, , count]) => count)
      .map(([finding, place, count]) => [`finding:${place}`, `${finding.kind.replaceAll("_", " ")} (${count})`]));
    const buckets = new Map();
    const sources = new Map();
    for (const picture of data.pictures) {
      buckets.set(size(picture.bucket), (buckets.get(size(picture.bucket)) || 0) + 1);
      sources.set(picture.source, (sources.get(picture.source) || 0) + 1);
    }
    group("In a bucket", [...buckets].sort((a, b) => b[1] - a[1]).map(([name, count]) => [`bucket:${name}`, `${name} (${count})`]));
    if (sources.size > 1) group("Of a source", [...sources].map(([name, count]) => [`source:${name}`, `${name} (${count})`]));
  }

  function matches(filter) {
    const [kind, ...rest] = filter.split(":");
    const value = rest.join(":");
    if (kind === "finding") {
      const items = data.findings[Number(value)].items;
      return (_, index) => index in items;
    }
    if (kind === "bucket") return (picture) => size(picture.bucket) === value;
    if (kind === "source") return (picture) => picture.source === value;
    return () => true;
  }

  const worst = (picture) => Math.min(3, ...picture.findings.map((place) => RANK[data.findings[place].severity]));
  const ORDERS = {
    order: (a, b) => a - b,
    worst: (a, b) => worst(data.pictures[a]) - worst(data.pictures[b])
      || data.pictures[b].findings.length - data.pictures[a].findings.length || a - b,
    cut: (a, b) => data.pictures[b].cut - data.pictures[a].cut || a - b,
    scale: (a, b) => data.pictures[b].scale - data.pictures[a].scale || a - b,
    small: (a, b) => area(data.pictures[a]) - area(data.pictures[b]) || a - b,
    tokens: (a, b) => tokensOf(data.pictures[b]) - tokensOf(data.pictures[a]) || a - b,
  };
  const area = (picture) => picture.size[0] * picture.size[1];

  function choose() {
    const words = byId("search").value.toLowerCase();
    const fits = matches(byId("filter").value);
    state.shown = [];
    data.pictures.forEach((picture, index) => {
      if (!fits(picture, index)) return;
      if (words && !picture.name.toLowerCase().includes(words) && !picture.caption.toLowerCase().includes(words)) return;
      state.shown.push(index);
    });
    state.shown.sort(ORDERS[byId("sort").value]);
    state.page = 0;
    list();
  }

  function list() {
    const count = state.shown.length;
    const pages = Math.max(1, Math.ceil(count / PAGE));
    const first = state.page * PAGE;
    byId("cards").replaceChildren(...state.shown.slice(first, first + PAGE).map(card));
    if (!count) byId("cards").append(make("p", "hint", "No picture fits."));
    const where = count ? `${first + 1} – ${Math.min(count, first + PAGE)} of ${count.toLocaleString("en")}` : "none";
    for (const ending of ["", "-below"]) {
      byId(`where${ending}`).textContent = where;
      byId(`back${ending}`).disabled = state.page === 0;
      byId(`next${ending}`).disabled = state.page >= pages - 1;
    }
    document.querySelector(".tools.below").hidden = pages === 1;
  }

  function turn(pages, scroll) {
    state.page += pages;
    list();
    if (scroll) byId("pictures").scrollIntoView();
  }

  function show(filter) {
    byId("search").value = "";
    byId("filter").value = filter;
    choose();
    byId("pictures").scrollIntoView();
  }

  // ---- one picture ----
  function facts(picture) {
    const table = make("table");
    const add = (head, text) => {
      const row = make("tr");
      row.append(make("th", "", head), make("td", "", text));
      table.append(row);
    };
    if (data.severalSources) add("source", picture.source);
    add("size", `${size(picture.size)} px (height x width)`);
    add("bucket", size(picture.bucket));
    add("scaled", `× ${picture.scale.toFixed(3)} to ${size(picture.resized)}, ${picture.scale > 1 ? "blown up" : picture.scale < 1 ? "scaled down" : "as it is"}`);
    add(data.randomCrop ? "cut, if centred" : "cut", picture.cutWords);
    if (picture.mask) add("mask", `${picture.mask} (what it leaves out is tinted)`);
    add("file", [picture.format, picture.mode, picture.alpha ? "with transparency" : "", picture.frames > 1 ? `${picture.frames} frames` : ""].filter(Boolean).join(", "));
    add("orientation", picture.turn ? `lies ${picture.turn} in the file (EXIF ${picture.orientation}), trained upright` : "upright");
    if (picture.repeats > 1) add("repeats", String(picture.repeats));
    if (picture.tokens.length) add("tokens", `${picture.tokens.join(" and ")} of ${data.maxTokens}`);
    return table;
  }

  function open(index) {
    state.open = index;
    const picture = data.pictures[index];
    const place = state.shown.indexOf(index);
    const dialog = byId("picture");
    const top = make("div", "sheet-top");
    const button = (text, label, action, disabled) => {
      const node = make("button", "", text);
      node.type = "button";
      node.setAttribute("aria-label", label);
      node.disabled = disabled;
      node.addEventListener("click", action);
      return node;
    };
    top.append(make("h2", "", picture.name),
      button("‹", "Picture before", () => step(-1), place <= 0),
      button("›", "Next picture", () => step(1), place < 0 || place >= state.shown.length - 1),
      button("✕", "Close", () => dialog.close(), false));
    const sheet = make("div", "sheet");
    const right = make("div");
    right.append(facts(picture), caption(picture, "words"));
    right.lastChild.style.display = "block";
    const wrong = make("ul", "wrong");
    for (const placeOf of picture.findings) {
      const finding = data.findings[placeOf];
      const item = make("li");
      item.append(make("span", `chip ${finding.severity}`, finding.severity), finding.items[index] || finding.text);
      wrong.append(item);
    }
    right.append(wrong);
    const space = Math.min(dialog.clientWidth || window.innerWidth, 1080, window.innerWidth - 24);
    const narrow = window.innerWidth <= 720;
    sheet.append(framed(picture, narrow ? space - 48 : space / 2 - 60, Math.min(window.innerHeight * (narrow ? 0.44 : 0.56), narrow ? 380 : 480) - 24), right);
    dialog.replaceChildren(top, sheet);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  function step(by) {
    const next = state.shown[state.shown.indexOf(state.open) + by];
    if (next !== undefined) open(next);
  }

  // ---- duplicates ----
  let groupsShown = 0;
  function moreGroups() {
    const place = document.querySelector(".groups");
    const groups = data.groups.filter((group) => group.pictures.length > 1);
    for (const group of groups.slice(groupsShown, groupsShown + GROUPS)) {
      const node = make("div", "group");
      node.append(make("h3", "", `${group.pictures.length} ${group.same ? "times the same file" : "that look nearly alike"}`));
      const row = make("div", "row");
      for (const index of group.pictures.slice(0, 24)) {
        const picture = data.pictures[index];
        const button = make("button");
        button.type = "button";
        button.append(framed(picture, 124, 104), make("span", "name", picture.name), make("span", "sizes", size(picture.size)));
        button.addEventListener("click", () => open(index));
        row.append(button);
      }
      node.append(row);
      place.append(node);
    }
    groupsShown += GROUPS;
    byId("more-groups").hidden = groupsShown >= groups.length;
  }

  if (!byId("cards")) return;
  fillFilter();
  for (const [id, event] of [["search", "input"], ["filter", "change"], ["sort", "change"]]) byId(id).addEventListener(event, choose);
  byId("back").addEventListener("click", () => turn(-1, false));
  byId("next").addEventListener("click", () => turn(1, false));
  byId("back-below").addEventListener("click", () => turn(-1, true));
  byId("next-below").addEventListener("click", () => turn(1, true));
  for (const button of document.querySelectorAll("[data-finding]")) button.addEventListener("click", () => show(`finding:${button.dataset.finding}`));
  for (const button of document.querySelectorAll("[data-bucket]")) button.addEventListener("click", () => show(`bucket:${button.dataset.bucket}`));
  document.addEventListener("keydown", (event) => {
    if (!byId("picture").open) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  byId("picture").addEventListener("click", (event) => { if (event.target === byId("picture")) byId("picture").close(); });
  if (document.querySelector(".groups")) {
    byId("more-groups").addEventListener("click", moreGroups);
    moreGroups();
  }
  list();
})();
