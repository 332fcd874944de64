<<<<<<<< HEAD:ui/dist/assets/chunk-R4SLH57D.js
import{ca as s}from"/assets/chunk-DUC7PYJ3.js";function l({labels:e}){let a=Object.entries(e);return a.length===0?s("span",{class:"muted",children:"none"}):s("span",{class:"row",children:a.map(([n,p])=>s("span",{class:"chip",children:p?`${n}=${p}`:n},n))})}export{l as a};
========
import{da as s}from"/assets/chunk-OHUF6KAP.js";function l({labels:e}){let a=Object.entries(e);return a.length===0?s("span",{class:"muted",children:"none"}):s("span",{class:"row",children:a.map(([n,p])=>s("span",{class:"chip",children:p?`${n}=${p}`:n},n))})}export{l as a};
>>>>>>>> 0c3c3dc (Overview: cache hits, copies of journals by state, what fills the disks):ui/dist/assets/chunk-YQQB5YGM.js
