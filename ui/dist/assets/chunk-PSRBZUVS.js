import{a as l}from"/assets/chunk-UXYLE3MV.js";import{m as s,na as o}from"/assets/chunk-IKQLASF2.js";function c(r){let e={};for(let n of r.split(`
`)){let[t="",...i]=n.split("=");t.trim()&&(e[t.trim()]=i.join("=").trim())}return e}function g(r){return Object.keys(r).sort().map(e=>`${e}=${r[e]}`).join(`
`)}function f({value:r,onValue:e,error:n}){return o(l,{label:s`Labels`,hint:s`One a line, such as env=test. They are kept with the vDisk.`,error:n,children:t=>o("textarea",{...t,name:"labels",rows:3,spellcheck:!1,value:r,onInput:i=>e(i.currentTarget.value)})})}export{c as a,g as b,f as c};
