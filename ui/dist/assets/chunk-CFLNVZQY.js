<<<<<<<< HEAD:ui/dist/assets/chunk-CFLNVZQY.js
import{a as o}from"/assets/chunk-3KYV5WLJ.js";import{ca as s}from"/assets/chunk-DUC7PYJ3.js";function a(r){let e={};for(let n of r.split(`
========
import{a as o}from"/assets/chunk-OK5SIOVA.js";import{da as s}from"/assets/chunk-OHUF6KAP.js";function a(r){let e={};for(let n of r.split(`
>>>>>>>> 0c3c3dc (Overview: cache hits, copies of journals by state, what fills the disks):ui/dist/assets/chunk-A6LJDGGZ.js
`)){let[t="",...i]=n.split("=");t.trim()&&(e[t.trim()]=i.join("=").trim())}return e}function u(r){return Object.keys(r).sort().map(e=>`${e}=${r[e]}`).join(`
`)}function c({value:r,onValue:e,error:n}){return s(o,{label:"Labels",hint:"One a line, such as env=test. They are kept with the vDisk.",error:n,children:t=>s("textarea",{...t,name:"labels",rows:3,spellcheck:!1,value:r,onInput:i=>e(i.currentTarget.value)})})}export{a,u as b,c};
