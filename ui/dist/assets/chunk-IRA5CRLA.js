<<<<<<<< HEAD:ui/dist/assets/chunk-IRA5CRLA.js
import{a as o,ca as n}from"/assets/chunk-DUC7PYJ3.js";function r({options:e,chosen:i,onChoose:s,textOf:p=t=>t.text}){return n(o,{children:e.map(t=>n("button",{type:"button",class:"btn small","aria-pressed":t===i,onClick:()=>s(t),children:p(t)},t.id))})}export{r as a};
========
import{a as o,da as n}from"/assets/chunk-OHUF6KAP.js";function r({options:e,chosen:i,onChoose:s,textOf:p=t=>t.text}){return n(o,{children:e.map(t=>n("button",{type:"button",class:"btn small","aria-pressed":t===i,onClick:()=>s(t),children:p(t)},t.id))})}export{r as a};
>>>>>>>> 0c3c3dc (Overview: cache hits, copies of journals by state, what fills the disks):ui/dist/assets/chunk-TWTNHOUV.js
