// On a page that `dcreport --watch` serves: say when runs have written more. Not by itself, which would move what is read.
"use strict";
{
  let first = null;
  const look = async () => {
    try {
      const { version } = await (await fetch("/jobs.json")).json();
      first ??= version;
      byId("newer").hidden = version === first;
    } catch (error) {
      return;  // the server has ended: the page stays as it is
    }
    setTimeout(look, 5000);
  };
  byId("newer").querySelector("button").addEventListener("click", () => location.reload());
  look();
}
