import{a as o}from"/assets/chunk-Z5HRCSGB.js";import{fa as s}from"/assets/chunk-HINETB4W.js";function a(r){let e={};for(let n of r.split(`
`)){let[t="",...i]=n.split("=");t.trim()&&(e[t.trim()]=i.join("=").trim())}return e}function u(r){return Object.keys(r).sort().map(e=>`${e}=${r[e]}`).join(`
`)}function c({value:r,onValue:e,error:n}){return s(o,{label:"Labels",hint:"One a line, such as env=test. They are kept with the vDisk.",error:n,children:t=>s("textarea",{...t,name:"labels",rows:3,spellcheck:!1,value:r,onInput:i=>e(i.currentTarget.value)})})}export{a,u as b,c};
