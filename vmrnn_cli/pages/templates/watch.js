"use strict";
// The page of a stream: asks for what is new, one request after the other, so that a slow page asks less often.

const at = (id) => document.getElementById(id);
let known = -1;

function show(now) {
  known = now.frame;
  for (const id of ["picture", "forecast", "heat"]) {
    if (now[id]) at(id).src = now[id];
    at(id).closest(".frame").classList.toggle("ahead", now.lasting);
  }
  at("picture-note").textContent = `${now.time.toFixed(1)} s`;
  at("forecast-note").textContent = now.forecast ? "" : "not yet";
  at("heat-note").textContent = now.surprise === null ? "" : now.surprise.toFixed(1);
  const told = `frame ${now.frame + 1}, ${now.time.toFixed(1)} s` + (now.dropped ? `, ${now.dropped} dropped` : "");
  at("state").textContent = now.ended ? `The stream has ended: ${told}` : now.lasting ? `An event lasts: ${told}` : told;
  draw(now.curve, now.alarm);
  at("none").hidden = now.events.length > 0;
  at("events").replaceChildren(...now.events.map((event) => {
    const line = document.createElement("li");
    line.value = event.number;
    const end = event.end === null ? "and lasts" : `to ${event.end.toFixed(1)} s`;
    line.textContent = `from ${event.start.toFixed(1)} s ${end}, surprise ${event.surprise.toFixed(1)}`;
    return line;
  }));
}

function draw(curve, alarm) {
  const highest = Math.max(1.5 * alarm, ...curve), y = (value) => (136 - 132 * (value / highest)).toFixed(1);
  const step = 600 / Math.max(1, curve.length - 1);
  at("line").setAttribute("points", curve.map((value, index) => `${(index * step).toFixed(1)},${y(value)}`).join(" "));
  at("alarm").setAttribute("y1", y(alarm));
  at("alarm").setAttribute("y2", y(alarm));
}

async function follow() {
  for (;;) {
    try {
      const answer = await fetch(`latest?after=${known}`, { cache: "no-store" });
      if (answer.status === 200) {
        const now = await answer.json();
        show(now);
        if (now.ended) return;
      } else if (answer.status !== 204) throw new Error(answer.statusText);
    } catch (error) {
      at("state").textContent = "Nothing comes from the server; it is asked again.";
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

follow();
