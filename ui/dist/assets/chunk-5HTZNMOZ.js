<<<<<<<< HEAD:ui/dist/assets/chunk-5HTZNMOZ.js
import{a as r}from"/assets/chunk-3KYV5WLJ.js";import{ca as e}from"/assets/chunk-DUC7PYJ3.js";function u({name:n,value:t,onValue:o,rows:i=3,...l}){return e(r,{...l,children:a=>e("textarea",{...a,name:n,rows:i,spellcheck:!1,value:t,onInput:p=>o(p.currentTarget.value)})})}export{u as a};
========
import{a as r}from"/assets/chunk-OK5SIOVA.js";import{da as e}from"/assets/chunk-OHUF6KAP.js";function u({name:n,value:t,onValue:o,rows:i=3,...l}){return e(r,{...l,children:a=>e("textarea",{...a,name:n,rows:i,spellcheck:!1,value:t,onInput:p=>o(p.currentTarget.value)})})}export{u as a};
>>>>>>>> 0c3c3dc (Overview: cache hits, copies of journals by state, what fills the disks):ui/dist/assets/chunk-IKABLUZ5.js
