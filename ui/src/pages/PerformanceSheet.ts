// The style of the page Performance, which the first load of the console does without. build/contrast_test.go reads the colours.
const text = `
:root {
  --c5: light-dark(#9c2a6e, #f08fc4);
  --c6: light-dark(#5a6612, #b9c75a);
  --c7: light-dark(#6b3d12, #d6ab84);
  --c8: light-dark(#3f5560, #a3b7c2);
}
.perf .swatch.c5 { background: var(--c5); }
.perf .swatch.c6 { background: var(--c6); }
.perf .swatch.c7 { background: var(--c7); }
.perf .swatch.c8 { background: var(--c8); }
.perf .swatch.dashed { height: 2px; width: 10px; vertical-align: middle; -webkit-mask: linear-gradient(90deg, #000 4px, #0000 4px 6px, #000 6px); mask: linear-gradient(90deg, #000 4px, #0000 4px 6px, #000 6px); }
.perf .chosen { display: flex; flex-wrap: wrap; gap: var(--s2); margin: 0; padding: 0; list-style: none; }
.perf .chosen li { display: flex; align-items: center; gap: var(--s1); min-height: 28px; max-width: 100%; padding: 0 2px 0 var(--s2); border: 1px solid var(--line); border-radius: var(--r2); background: var(--surface); }
.perf .chosen a { overflow-wrap: anywhere; }
.perf .bar { display: flex; flex-wrap: wrap; align-items: center; gap: var(--s2) var(--s4); }
.perf .metrics { display: flex; flex-wrap: wrap; gap: var(--s1); }
.perf .metrics .btn[aria-pressed="true"], .perf .bar .btn[aria-pressed="true"] { border-color: var(--accent); background: var(--accent-soft); font-weight: 600; }
@media (max-width: 820px) {
  .perf .metrics { flex-wrap: nowrap; margin: 0 calc(-1 * var(--s3)); padding: 3px var(--s3); overflow-x: auto; }
  .perf .metrics .btn { flex: none; }
}
.perf .heat-bar { display: flex; flex-wrap: wrap; align-items: center; gap: var(--s2) var(--s3); margin-bottom: var(--s1); color: var(--ink-2); font-size: var(--fs-12); }
.perf .heat-scale { display: inline-flex; align-items: center; gap: 0; }
.perf .heat-scale i { display: inline-block; width: 16px; height: 10px; }
.perf .heat-scale span { padding: 0 var(--s1); }
.perf .heat { min-height: 232px; }
.perf .heat-table { max-height: 320px; overflow: auto; }
`;

let adopted = false;

/** Puts the style on the document, once. */
export function adopt(): void {
  if (!adopted) {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(text);
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    adopted = true;
  }
}
