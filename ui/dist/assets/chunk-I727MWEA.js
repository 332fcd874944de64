<<<<<<<< HEAD:ui/dist/assets/chunk-I727MWEA.js
import{ca as t,s as n}from"/assets/chunk-DUC7PYJ3.js";function p({to:i,children:e,...o}){return t("a",{href:i,...o,onClick:r=>{!r.metaKey&&!r.ctrlKey&&!r.shiftKey&&r.button===0&&(r.preventDefault(),n(i))},children:e})}export{p as a};
========
import{da as t,s as n}from"/assets/chunk-OHUF6KAP.js";function p({to:i,children:e,...o}){return t("a",{href:i,...o,onClick:r=>{!r.metaKey&&!r.ctrlKey&&!r.shiftKey&&r.button===0&&(r.preventDefault(),n(i))},children:e})}export{p as a};
>>>>>>>> 0c3c3dc (Overview: cache hits, copies of journals by state, what fills the disks):ui/dist/assets/chunk-YYTFDI5R.js
